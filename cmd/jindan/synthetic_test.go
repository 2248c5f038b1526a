package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"jindan/capture"
)

// pcap builds a capture of Ethernet frames.
type pcap struct {
	buf bytes.Buffer
	now time.Time
	id  uint16
}

func newPcap() *pcap {
	p := &pcap{now: time.Date(2023, 11, 17, 8, 40, 0, 0, time.UTC)}
	h := make([]byte, 24)
	binary.LittleEndian.PutUint32(h, 0xa1b2c3d4)
	h[4], h[6] = 2, 4
	binary.LittleEndian.PutUint32(h[16:], 65535)
	h[20] = 1 // LINKTYPE_ETHERNET
	p.buf.Write(h)
	return p
}

// ip writes a frame with an IPv4 packet.
func (p *pcap) ip(src, dst [4]byte, proto byte, payload []byte) {
	p.id++
	n := 14 + 20 + len(payload)
	f := make([]byte, 16+n)
	binary.LittleEndian.PutUint32(f, uint32(p.now.Unix()))
	binary.LittleEndian.PutUint32(f[4:], uint32(p.now.Nanosecond()/1000))
	binary.LittleEndian.PutUint32(f[8:], uint32(n))
	binary.LittleEndian.PutUint32(f[12:], uint32(n))
	e := f[16:]
	e[5], e[11] = dst[3], src[3]
	e[12] = 8
	i := e[14:]
	i[0], i[8], i[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(i[2:], uint16(n-14))
	binary.BigEndian.PutUint16(i[4:], p.id)
	copy(i[12:], src[:])
	copy(i[16:], dst[:])
	copy(i[20:], payload)
	p.buf.Write(f)
}

// conn is one TCP connection being written.
type conn struct {
	p    *pcap
	port uint16
	seq  [2]uint32
}

var (
	clientIP = [4]byte{10, 0, 0, 1}
	serverIP = [4]byte{10, 0, 0, 2}
)

// send writes a segment from side s (0: client) and moves time on.
func (c *conn) send(s int, flags uint8, n int, after time.Duration) {
	c.p.now = c.p.now.Add(after)
	t := make([]byte, 20+n)
	src, dst, ports := clientIP, serverIP, [2]uint16{c.port, 8080}
	if s == 1 {
		src, dst, ports = serverIP, clientIP, [2]uint16{8080, c.port}
	}
	binary.BigEndian.PutUint16(t, ports[0])
	binary.BigEndian.PutUint16(t[2:], ports[1])
	binary.BigEndian.PutUint32(t[4:], c.seq[s])
	if flags&capture.ACK != 0 {
		binary.BigEndian.PutUint32(t[8:], c.seq[1-s])
	}
	t[12], t[13] = 5<<4, flags
	binary.BigEndian.PutUint16(t[14:], 65000)
	c.p.ip(src, dst, 6, t)
	c.seq[s] += uint32(n)
	if flags&(capture.SYN|capture.FIN) != 0 {
		c.seq[s]++
	}
}

// resend writes the last n bytes of side s again.
func (c *conn) resend(s, n int, after time.Duration) {
	c.seq[s] -= uint32(n)
	c.send(s, capture.ACK, n, after)
}

func (p *pcap) open(port int) *conn {
	c := &conn{p: p, port: uint16(port), seq: [2]uint32{1000 * uint32(port), 77 * uint32(port)}}
	c.send(0, capture.SYN, 0, 0)
	c.send(1, capture.SYN|capture.ACK, 0, time.Millisecond)
	c.send(0, capture.ACK, 0, time.Millisecond)
	return c
}

func (c *conn) close() {
	c.send(0, capture.FIN|capture.ACK, 0, time.Millisecond)
	c.send(1, capture.FIN|capture.ACK, 0, time.Millisecond)
	c.send(0, capture.ACK, 0, time.Millisecond)
}

// dns writes a query for example.com and its answer.
func (p *pcap) dns(id uint16) {
	m := append([]byte{byte(id >> 8), byte(id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, "\x07example\x03com\x00\x00\x01\x00\x01"...)
	answer := append(bytes.Clone(m), "\xc0\x0c\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04\x5d\xb8\xd8\x22"...)
	answer[2], answer[3], answer[7] = 0x81, 0x80, 1
	udp := func(from, to uint16, m []byte) []byte {
		u := make([]byte, 8, 8+len(m))
		binary.BigEndian.PutUint16(u, from)
		binary.BigEndian.PutUint16(u[2:], to)
		binary.BigEndian.PutUint16(u[4:], uint16(8+len(m)))
		return append(u, m...)
	}
	p.ip(serverIP, [4]byte{10, 0, 0, 53}, 17, udp(30000+id, 53, m))
	p.now = p.now.Add(2 * time.Millisecond)
	p.ip([4]byte{10, 0, 0, 53}, serverIP, 17, udp(53, 30000+id, answer))
}

// synthetic are the captures that scripts can ask for.
var synthetic = map[string]func(*pcap){
	// healthy: 40 requests of one client, each with a DNS query, over 20 s.
	"healthy": func(p *pcap) {
		for i := range 40 {
			c := p.open(20000 + i)
			c.send(0, capture.ACK|capture.PSH, 300, time.Millisecond)
			p.dns(uint16(i))
			for range 5 {
				c.send(1, capture.ACK, 1400, time.Millisecond)
				c.send(0, capture.ACK, 0, time.Millisecond)
			}
			c.close()
			p.now = p.now.Add(480 * time.Millisecond)
		}
	},
	// lossy: the same, but from the tenth second on each answer is sent three times.
	"lossy": func(p *pcap) {
		for i := range 60 {
			c := p.open(20000 + i)
			c.send(0, capture.ACK|capture.PSH, 300, time.Millisecond)
			for range 5 {
				c.send(1, capture.ACK, 1400, time.Millisecond)
				if i >= 20 {
					c.resend(1, 1400, 300*time.Millisecond)
				}
				c.send(0, capture.ACK, 0, time.Millisecond)
			}
			c.close()
			p.now = p.now.Add(480 * time.Millisecond)
		}
	},
	// none: no packet at all.
	"none": func(*pcap) {},
	// arp: no IP packet.
	"arp": func(p *pcap) {
		f := make([]byte, 16+42)
		binary.LittleEndian.PutUint32(f, uint32(p.now.Unix()))
		f[8], f[12] = 42, 42
		f[16+12], f[16+13] = 8, 6
		p.buf.Write(f)
	},
}

func atoi(ts *testscript.TestScript, s string) int {
	n, err := strconv.Atoi(s)
	ts.Check(err)
	return n
}

func unhex(ts *testscript.TestScript, s string) []byte {
	b, err := hex.DecodeString(s)
	ts.Check(err)
	return b
}
