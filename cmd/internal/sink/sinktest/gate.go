package sinktest

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// gateBuffer is the receive buffer of a connection, in bytes. Linux' own grows with the load to 6 MiB (tcp_rmem), which a test
// would have to fill before a receiver that does not read can be told from one that does. The 64 KiB that are announced with the
// handshake are filled all the same.
const gateBuffer = 32 << 10

// Gate is the listener of a receiver in this process. The receiver behind it can be killed, or left to read nothing, and come
// back at the same address with all it has stored.
type Gate struct {
	t       testing.TB
	address net.Addr
	kill    func() // with Cut; or nil
	start   func() // with the Mend that follows; or nil

	mu       sync.Mutex
	change   *sync.Cond
	listener net.Listener // nil: connections are refused
	deaf     bool         // connections are accepted and not read
	closed   bool
	conns    map[*gated]bool
}

// NewGate listens on a free port of loopback.
func NewGate(t testing.TB) *Gate {
	t.Helper()
	g := &Gate{t: t, address: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, conns: map[*gated]bool{}}
	g.change = sync.NewCond(&g.mu)
	g.listen()
	g.address = g.listener.Addr()
	t.Cleanup(func() { g.Close() })
	return g
}

// NewProxy is the gate of a receiver in another process, at an address of its own. Cut calls kill, and the Mend that follows start.
func NewProxy(t testing.TB, address string, kill, start func()) *Gate {
	t.Helper()
	g := NewGate(t)
	g.kill, g.start = kill, start
	go func() {
		for {
			c, err := g.Accept()
			if err != nil {
				return
			}
			go Relay(c, address)
		}
	}()
	return g
}

// Relay passes on what comes over c to a receiver, and back, until either side ends; then c is closed.
func Relay(c net.Conn, address string) {
	defer c.Close()
	r, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	go func() {
		defer c.Close()
		_, _ = io.Copy(c, r) // ends with either side
	}()
	defer r.Close()
	_, _ = io.Copy(r, c)
}

// Addr is the same before, in and after a fault.
func (g *Gate) Addr() net.Addr { return g.address }

// Accept waits while the receiver is absent.
func (g *Gate) Accept() (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.closed {
		l := g.listener
		if l == nil {
			g.change.Wait()
			continue
		}
		g.mu.Unlock()
		c, err := l.Accept()
		g.mu.Lock()
		switch {
		case err != nil:
		case l != g.listener: // killed meanwhile
			c.Close()
		default:
			_ = c.(*net.TCPConn).SetReadBuffer(gateBuffer) // without it a test only takes longer
			x := &gated{Conn: c, g: g}
			g.conns[x] = true
			return x, nil
		}
	}
	return nil, net.ErrClosed
}

// Close ends the receiver for good.
func (g *Gate) Close() error {
	g.Cut()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.change.Broadcast()
	return nil
}

// Cut ends what there is, as when the receiver is killed: connections are refused, and those that were made are closed, or reset
// where something was not read.
func (g *Gate) Cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != nil {
		g.listener.Close()
		g.listener = nil
	}
	for c := range g.conns {
		c.closed = true
		c.Conn.Close()
	}
	clear(g.conns)
	if g.kill != nil {
		g.kill()
	}
	g.change.Broadcast()
}

// Deafen lets connections be made, and reads nothing from them nor from those that there are, as when the receiver hangs.
func (g *Gate) Deafen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deaf = true
	for c := range g.conns {
		c.woken = true
		_ = c.SetReadDeadline(time.Unix(1, 0)) // ends a read under way
	}
}

// Mend ends every fault. What was not read is read now.
func (g *Gate) Mend() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deaf = false
	for c := range g.conns {
		_ = c.SetReadDeadline(time.Time{})
	}
	if g.listener == nil && !g.closed {
		if g.start != nil {
			g.start()
		}
		g.listen()
	}
	g.change.Broadcast()
}

func (g *Gate) listen() {
	var err error
	for range 500 { // another connection may have the port for its own end, for a moment
		if g.listener, err = net.Listen("tcp", g.address.String()); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	g.t.Fatal(err)
}

// gated is a connection that a deaf receiver does not read.
type gated struct {
	net.Conn
	g             *Gate
	woken, closed bool // by the gate; under its lock
}

func (c *gated) Read(b []byte) (int, error) {
	for {
		c.g.mu.Lock()
		for c.g.deaf && !c.closed {
			c.g.change.Wait()
		}
		c.g.mu.Unlock()
		n, err := c.Conn.Read(b)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		c.g.mu.Lock()
		again := c.woken
		c.woken = false
		c.g.mu.Unlock()
		if !again {
			return n, err
		}
	}
}

func (c *gated) Close() error {
	c.g.mu.Lock()
	c.closed = true
	delete(c.g.conns, c)
	c.g.change.Broadcast()
	c.g.mu.Unlock()
	return c.Conn.Close()
}
