package decode

// dnsStreamKeep is how much of a message DNSStream keeps, in bytes: the header
// (12), the longest name (255), type and class (4) and a little more.
const dnsStreamKeep = 300

// DNSStream finds the messages in one direction of a DNS over TCP connection, where
// each follows its length in 2 bytes (RFC 1035 §4.2.2). It has no pointers and a fixed
// size. The zero value is ready at the start of the stream.
//
// The payload must come in order. Where bytes of it are missing, call Lost.
type DNSStream struct {
	size   uint16 // length of the message being read
	got    uint16 // bytes of it that passed
	kept   uint16 // bytes of it in keep
	length uint8  // bytes of the length prefix that are known: 0, 1, 2
	lost   bool
	gap    bool // bytes within keep's reach were not captured
	keep   [dnsStreamKeep]byte
}

// Lost says that payload is missing, or that the start of the connection was not
// seen. Messages are found again from the next segment that begins with one.
func (s *DNSStream) Lost() { *s = DNSStream{lost: true} }

// Next reads on in a segment whose captured payload is b and whose payload has n bytes
// on the wire. It returns how many of the n bytes it used and, if a message ended
// with them, its length and the part of it that is known: all of it when it lies
// in b as a whole, otherwise its first 300 bytes or less. The part borrows from b or
// from s. No message ended if size is 0.
//
//	for n > 0 {
//		msg, size, used := s.Next(b, n)
//		if size > 0 { … }
//		b, n = b[min(used, len(b)):], n-used
//	}
func (s *DNSStream) Next(b []byte, n int) (msg []byte, size, used int) {
	b = b[:min(len(b), n)]
	if s.lost {
		// A length that ends the segment, or is exceeded by it, with an opcode in use
		// (IANA dns-parameters: 0 to 6) and at most one question, is taken for a start.
		if len(b) < 2+dnsHeader || int(be16(b))+2 > n || be16(b) < dnsHeader ||
			b[4]>>3&0x0f > 6 || be16(b[6:]) > 1 {
			return nil, 0, n
		}
		s.lost = false
	}
	for s.length < 2 {
		if used == n {
			return nil, 0, used
		}
		if used == len(b) { // the length itself was not captured
			s.Lost()
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
