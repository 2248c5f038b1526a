package flow

import "jindan/capture"

// dnsStreamKeep is how much of a message dnsStream keeps, in bytes: the header
// (12), the longest name (255), type and class (4) and a little more.
const dnsStreamKeep = 300

// dnsStream finds the messages in one direction of a DNS over TCP connection, where
// each follows its length in 2 bytes (RFC 1035 §4.2.2). It has no pointers and a fixed
// size. The zero value is ready at the start of the stream.
//
// The payload must come in order. Where bytes of it are missing, call lose.
type dnsStream struct {
	size   uint16 // length of the message being read
	got    uint16 // bytes of it that passed
	kept   uint16 // bytes of it in keep
	length uint8  // bytes of the length prefix that are known: 0, 1, 2
	lost   bool
	prefix uint16 // lost: the newest segment held two bytes, which may be a length; 0: it did not
	gap    bool   // bytes within keep's reach were not captured
	keep   [dnsStreamKeep]byte
}

// lose says that payload is missing, or that the start of the connection was not
// seen. Messages are found again from the next segment that begins with one.
func (s *dnsStream) lose() { *s = dnsStream{lost: true} }

// next reads on in a segment whose captured payload is b and whose payload has n bytes
// on the wire. It returns how many of the n bytes it used and, if a message ended
// with them, its length and the part of it that is known: all of it when it lies
// in b as a whole, otherwise its first 300 bytes or less. The part borrows from b or
// from s. No message ended if size is 0.
//
//	for n > 0 {
//		msg, size, used := s.next(b, n)
//		if size > 0 { … }
//		b, n = b[min(used, len(b)):], n-used
//	}
func (s *dnsStream) next(b []byte, n int) (msg []byte, size, used int) {
	b = b[:min(len(b), n)]
	if s.lost {
		switch prefix := s.prefix; {
		case prefix != 0 && n <= int(prefix) && begins(b):
			// Some servers send the length in a segment of its own.
			*s = dnsStream{size: prefix, length: 2}
		case resumes(b, n):
			*s = dnsStream{}
		default:
			if s.prefix = 0; n == 2 && len(b) == 2 && be16(b) >= dnsHeader {
				s.prefix = be16(b)
			}
			return nil, 0, n
		}
	}
	for s.length < 2 {
		if used == n {
			return nil, 0, used
		}
		if used == len(b) { // the length itself was not captured
			s.lose()
			return nil, 0, n
		}
		s.size = s.size<<8 | uint16(b[used])
		s.length++
		used++
	}
	take := min(int(s.size-s.got), n-used)
	have := b[min(used, len(b)):]
	have = have[:min(len(have), take)]
	used += take
	whole := s.got == 0 && take == int(s.size)
	if !whole && !s.gap {
		s.kept += uint16(copy(s.keep[s.kept:], have))
	}
	s.gap = s.gap || len(have) < take
	s.got += uint16(take)
	if s.got < s.size {
		return nil, 0, used
	}
	size = int(s.size)
	msg = have
	if !whole {
		msg = s.keep[:s.kept]
	}
	s.size, s.got, s.kept, s.length, s.gap = 0, 0, 0, 0, false
	return msg, size, used
}

// resumes reports whether a segment may begin with a message: after its length comes a
// header with an opcode in use (IANA dns-parameters: 0 to 6) and at most one question; a
// message that is longer than the segment must also have a question in a class in use (IN,
// CH, HS, NONE, ANY).
func resumes(b []byte, n int) bool {
	if len(b) < 2+dnsHeader || be16(b) < dnsHeader || !begins(b[2:]) {
		return false
	}
	if int(be16(b))+2 <= n {
		return true
	}
	at := skipName(b, 2+dnsHeader)
	if be16(b[6:]) != 1 || at < 0 || at+4 > len(b) {
		return false
	}
	switch be16(b[at+2:]) {
	case 1, 3, 4, 254, 255:
		return true
	}
	return false
}

// begins reports whether b may begin with a DNS header.
func begins(b []byte) bool { return len(b) >= dnsHeader && b[2]>>3&0x0f <= 6 && be16(b[4:]) <= 1 }

// dnsStreams are the DNS over TCP connections: the newest maxDNSStreams of them.
type dnsStreams struct {
	index map[[2]capture.Endpoint]uint16
	keys  [][2]capture.Endpoint
	conns [][2]dnsFlow
	next  int
}

// dnsFlow is one direction of such a connection.
type dnsFlow struct {
	stream dnsStream
	seq    uint32 // of the next byte
	known  bool
}

// maxDNSStreams bounds the DNS over TCP connections that are followed at a time, at 640 bytes each.
const maxDNSStreams = 1024

// get returns the direction of the connection in which p goes.
func (s *dnsStreams) get(p *capture.Packet, stats *DNSStats) *dnsFlow {
	k, side := [2]capture.Endpoint{p.Src, p.Dst}, 0
	if p.Src.Compare(p.Dst) > 0 {
		k[0], k[1], side = p.Dst, p.Src, 1
	}
	if i, ok := s.index[k]; ok {
		return &s.conns[i][side]
	}
	if s.index == nil {
		s.index = make(map[[2]capture.Endpoint]uint16)
	}
	i := s.next
	if len(s.conns) < maxDNSStreams {
		i = len(s.conns)
		s.keys = append(s.keys, k)
		s.conns = append(s.conns, [2]dnsFlow{})
	} else {
		delete(s.index, s.keys[i])
		s.keys[i], s.conns[i] = k, [2]dnsFlow{}
		s.next = (i + 1) % maxDNSStreams
		stats.Streams++
	}
	s.index[k] = uint16(i)
	return &s.conns[i][side]
}

// place takes the part of the segment that is new: b of n bytes. It is empty for a
// repetition.
func (f *dnsFlow) place(p *capture.Packet, stats *DNSStats) (b []byte, n int) {
	b, n = p.Data, int(p.Len)
	if !f.known {
		f.known, f.seq = true, p.Seq
		if n > 2 {
			f.stream.lose() // it may not be the first segment; a message at its start will be found
		} // else some server sends the length, or its first byte, by itself
	}
	switch off := int32(p.Seq - f.seq); {
	case off > 0:
		stats.LostTCP++
		f.stream.lose()
	case off < 0 && int(-off) < n:
		b, n = b[min(int(-off), len(b)):], n+int(off)
	case off < 0 && -off < 1<<20:
		return nil, 0
	case off < 0: // another connection between the same ports
		f.stream.lose()
	}
	f.seq = p.Seq + p.Len
	return b, n
}
