package sink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// TLS configures an encrypted connection.
type TLS struct {
	Enable             bool   // implied by any other field
	CA                 string // PEM file with the authorities to trust; empty = those of the system
	Cert, Key          string // PEM files of the client certificate
	ServerName         string // expected in the server's certificate; empty = host of the address
	InsecureSkipVerify bool   // take any certificate
}

// Enabled tells whether TLS is asked for.
func (t TLS) Enabled() bool { return t != TLS{} }

// Config reads the files.
func (t TLS) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read TLS authorities: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read TLS authorities %s: no PEM certificate in it", t.CA)
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, errors.New("TLS client certificate: give both cert and key")
	}
	if t.Cert != "" {
		if _, err := tls.LoadX509KeyPair(t.Cert, t.Key); err != nil {
			return nil, fmt.Errorf("read TLS client certificate %s: %w", t.Cert, err)
		}
		// Read again for each handshake: certificates are renewed under a running agent.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
			return &pair, err
		}
	}
	return c, nil
}

// stream is a connection that is made when it is first needed and dropped on the
// first error.
type stream struct {
	network, address string
	tls              *tls.Config
	conn             net.Conn
	clean            bool // the last connection was closed by the receiver after it had read everything
}

// open connects. A stream that the receiver closed is noticed here, before a
// batch is written into it: nothing is expected to be readable but its end.
func (s *stream) open(ctx context.Context) error {
	if s.conn != nil && s.tls == nil && s.network != "udp" && s.network != "unixgram" {
		if err := ended(s.conn); err != nil {
			s.close()
			s.clean = errors.Is(err, io.EOF) // with something unread the connection is reset (RFC 2525 §2.17)
		}
	}
	if s.conn == nil {
		var d net.Dialer
		conn, err := d.DialContext(ctx, s.network, s.address)
		if err != nil {
			return err
		}
		if s.tls != nil {
			c := s.tls.Clone()
			if c.ServerName == "" {
				c.ServerName, _, _ = net.SplitHostPort(s.address)
			}
			t := tls.Client(conn, c)
			if err := t.HandshakeContext(ctx); err != nil {
				conn.Close()
				return fmt.Errorf("TLS with %s: %w", s.address, err)
			}
			conn = t
		}
		s.conn = conn
	}
	deadline, _ := ctx.Deadline()
	return s.conn.SetDeadline(deadline)
}

func (s *stream) close() {
	if s.conn != nil {
		s.conn.Close()
		s.conn, s.clean = nil, false
	}
}
