package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"time"
)

// expireSoon is when a certificate's end is warned about: 30 days, when ACME clients renew.
const expireSoon = 30 * 24 * time.Hour

// maxSecretFile bounds certificates and secrets, in bytes; a system's CA bundle has 220 kB.
const maxSecretFile = 1 << 20

var (
	errNoDir  = errors.New("is no directory")
	errNoFile = errors.New("is no regular file")
	errLarge  = fmt.Errorf("has more than %d bytes", maxSecretFile)
)

// Certificate is one that the configuration names.
type Certificate struct {
	File     string
	Subject  string
	NotAfter time.Time
}

// cause is err without the path, which the message names already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// file reads the file that the value at path names. Nothing but a regular file: reading must end.
func (d *decoder) file(path, name string) ([]byte, fs.FileInfo) {
	data, st, err := readFile(name, maxSecretFile)
	if err != nil {
		d.failAt(path, "file %s: %v", d.origin.at(path).quote(), cause(err))
		return nil, nil
	}
	return data, st
}

func readFile(name string, limit int64) ([]byte, fs.FileInfo, error) {
	st, err := os.Stat(name) // before it is opened: opening a pipe may block
	if err != nil {
		return nil, nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, nil, errNoFile
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errLarge
	}
	return data, st, err
}

// secret reads a secret that must not stand in the file itself.
func (d *decoder) secret(n *node, to *Secret) bool {
	if !n.refers() {
		d.fail(n.errorf("a secret does not belong here: write ${NAME} for the environment's NAME, or name a file"))
		return false
	}
	s, ok := d.expand(n)
	if ok && s == "" {
		d.fail(n.errorf("%s is empty", n.quote()))
	}
	*to = Secret(s)
	return ok && s != ""
}

// secretFile is what the file named at path holds, without the line break at its end.
func (d *decoder) secretFile(path string) Secret {
	n := d.origin.at(path)
	name, ok := d.expand(n)
	if !ok {
		return ""
	}
	data, st := d.file(path, name)
	if st == nil {
		return ""
	}
	d.private(path, st)
	data = bytes.TrimRight(data, "\r\n")
	if len(data) == 0 {
		d.failAt(path, "file %s: is empty", n.quote())
	}
	return Secret(data)
}

// private warns when everybody may read a secret.
func (d *decoder) private(path string, st fs.FileInfo) {
	if st.Mode().Perm()&0o004 != 0 {
		d.warnAt(path, "file %s: every user may read it (chmod o-r)", d.origin.at(path).quote())
	}
}

// password is the one of the mapping at path: a reference, or what a file holds.
func (d *decoder) password(path string, s Secret, file string) Secret {
	switch written := d.origin[path+".password"] != nil; {
	case d.origin.at(path).kind != mapping: // reported already
	case written && file != "":
		d.failAt(path+".password_file", "password is given, too; one of them")
	case written:
	case file != "":
		return d.secretFile(path + ".password_file")
	case d.origin[path+".password_file"] == nil:
		d.failAt(path, `needs the key "password_file", or "password" with ${NAME}`)
	}
	return s
}

// Names of HTTP headers (RFC 9110 §5.1: tokens), and of those that hold secrets.
var (
	headerName   = matches("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
	secretHeader = regexp.MustCompile(`(?i)auth|token|secret|key|pass|cookie|credential|session|signature`)
)

func (d *decoder) headers(n *node, to *map[string]Secret, path string) {
	if n.kind != mapping {
		d.fail(n.errorf("expected a mapping of header names to values, found %s", n.kind))
		return
	}
	*to = map[string]Secret{}
	for i, k := range n.keys {
		item := n.items[i]
		if !headerName(k.text) {
			d.fail(k.errorf("this is no name of a header"))
			continue
		}
		if item.kind == broken {
			continue
		}
		d.origin[path+"."+k.text] = item
		var s Secret
		switch {
		case item.kind != scalar:
			d.fail(item.errorf("expected a single value, found %v", item.kind))
		case secretHeader.MatchString(k.text) || item.refers():
			d.secret(item, &s)
		default:
			text, _ := d.expand(item)
			s = Secret(text)
		}
		(*to)[k.text] = s
	}
}

// tls checks the TLS block of the sink at path. encrypts: the address asks for TLS; want says which
// address would.
func (d *decoder) tls(path string, t *TLS, encrypts bool, address, want string) {
	if t == nil {
		return
	}
	path += ".tls"
	if !encrypts && address != "" {
		d.failAt(path, "tls needs %s", want)
	}
	if t.InsecureSkipVerify {
		d.warnAt(path+".insecure_skip_verify", "the server's certificate is not verified: anybody on the path can read and change what is sent")
		if t.CA != "" {
			d.failAt(path+".ca", "ca has no effect with insecure_skip_verify")
		}
	}
	if t.CA != "" {
		if data, st := d.file(path+".ca", t.CA); st != nil {
			d.certificates(path+".ca", t.CA, data)
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		d.failAt(path, "cert and key belong together: one of them is missing")
		return
	}
	if t.Cert == "" {
		return
	}
	cert, st := d.file(path+".cert", t.Cert)
	key, keyStat := d.file(path+".key", t.Key)
	if keyStat != nil {
		d.private(path+".key", keyStat)
	}
	if st == nil || keyStat == nil || !d.certificates(path+".cert", t.Cert, cert) {
		return
	}
	if block, _ := pem.Decode(key); block == nil {
		d.failAt(path+".key", "file %s: has no private key in PEM", d.origin.at(path+".key").quote())
		return
	}
	// The error may quote the key's file; say no more than that.
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		d.failAt(path+".key", "file %s: is not the private key of the certificate in %s", d.origin.at(path+".key").quote(), d.origin.at(path+".cert").quote())
	}
}

// certificates checks the certificates in data; the first is the client's own. Of a list of CAs
// the one that lasts longest counts.
func (d *decoder) certificates(path, name string, data []byte) bool {
	var found *x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			d.failAt(path, "file %s: a certificate cannot be parsed: %v", d.origin.at(path).quote(), err)
			return false
		}
		if found == nil || strings.HasSuffix(path, ".ca") && c.NotAfter.After(found.NotAfter) {
			found = c
		}
	}
	if found == nil {
		d.failAt(path, "file %s: has no certificate in PEM", d.origin.at(path).quote())
		return false
	}
	d.certs = append(d.certs, Certificate{name, found.Subject.String(), found.NotAfter})
	file, end := d.origin.at(path).quote(), found.NotAfter.UTC().Format("2006-01-02 15:04 MST")
	switch left := found.NotAfter.Sub(d.opt.Now); {
	case left < 0 && d.opt.Strict:
		d.failAt(path, "file %s: the certificate expired on %s", file, end)
	case left < 0:
		d.warnAt(path, "file %s: the certificate expired on %s", file, end)
	case d.opt.Now.Before(found.NotBefore):
		d.warnAt(path, "file %s: the certificate is not valid before %s", file, found.NotBefore.UTC().Format("2006-01-02 15:04 MST"))
	case left < expireSoon:
		d.warnAt(path, "file %s: the certificate expires in %d days, on %s", file, int(left.Hours()/24), end)
	}
	return true
}
