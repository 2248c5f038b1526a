package flow

import (
	"encoding/binary"
	"errors"
)

// Lengths and limits of DNS messages.
const (
	dnsHeader   = 12  // bytes, RFC 1035 §4.1.1
	dnsNameWire = 255 // bytes, RFC 1035 §2.3.4
	dnsNameText = 255 // bytes of presentation form that DNS keeps
	dnsTypeOPT  = 41  // RFC 6891 §6.1.1
	// dnsPointers bounds the compression pointers of a name. Each must point further
	// back than the one before, and no encoder needs more than one per label (127).
	dnsPointers = 127
	// dnsRecords bounds the records that are walked in search of OPT. It ends the
	// additional section of what is a DNS answer in any service; a zone transfer has more.
	dnsRecords = 512
)

// Errors of dnsMessage.parse. errDNSShort is the only one that leaves nothing valid.
var (
	errDNSShort = errors.New("DNS message shorter than its header")
	errDNSName  = errors.New("DNS question with an impossible name")
	// errDNSCut says that the question is not there as a whole; the header fields
	// are valid.
	errDNSCut = errors.New("DNS message cut within its question")
)

// dnsMessage is the header and the question of a DNS message (RFC 1035 §4.1), reused
// from message to message.
type dnsMessage struct {
	// Name is the query name, lower case, in presentation form (RFC 4343 §2.1: other
	// than printable bytes as \DDD, dots and backslashes within labels escaped), without
	// the final dot; "." is the root. It borrows from the dnsMessage and ends after 255 bytes.
	Name     []byte
	NameHash uint64 // FNV-1a, 64 bits, of the lower-case wire name

	ID            uint16
	QType, QClass uint16
	QDCount       uint16
	Answers       uint16 // ANCOUNT
	EDNSSize      uint16 // requestor's UDP payload size, RFC 6891 §6.2.3
	Opcode        uint8
	Rcode         uint8 // with the upper bits from EDNS (RFC 6891 §6.1.3); 255 stands for more
	Response      bool
	Truncated     bool
	RD            bool
	HasEDNS       bool
	NameCut       bool // Name was cut at 255 bytes; NameHash is of the whole

	text [dnsNameText]byte
}

// parse reads a message, of which the end may be missing: header and question are
// enough. Without a question (QDCount 0, as some servers refuse) there is no error and
// no name.
func (m *dnsMessage) parse(b []byte) error {
	m.Name, m.NameHash, m.NameCut = nil, 0, false
	m.QType, m.QClass, m.EDNSSize, m.HasEDNS = 0, 0, 0, false
	if len(b) < dnsHeader {
		m.ID, m.QDCount, m.Answers, m.Opcode, m.Rcode = 0, 0, 0, 0, 0
		m.Response, m.Truncated, m.RD = false, false, false
		return errDNSShort
	}
	h := (*[dnsHeader]byte)(b)
	m.ID = be16(h[0:])
	m.Response = h[2]&0x80 != 0
	m.Opcode = h[2] >> 3 & 0x0f
	m.Truncated = h[2]&0x02 != 0
	m.RD = h[2]&0x01 != 0
	m.Rcode = h[3] & 0x0f
	m.QDCount = be16(h[4:])
	m.Answers = be16(h[6:])
	at := dnsHeader
	if m.QDCount > 0 {
		next, err := m.name(b, at)
		if err != nil {
			return err
		}
		if next+4 > len(b) {
			return errDNSCut
		}
		m.QType, m.QClass = be16(b[next:]), be16(b[next+2:])
		at = next + 4
	}
	if additional := be16(h[10:]); additional > 0 {
		m.edns(b, at, int(m.Answers)+int(be16(h[8:])), int(additional))
	}
	return nil
}

// FNV-1a, 64 bits (draft-eastlake-fnv-17 §5).
const (
	fnvOffset = 0xcbf29ce484222325
	fnvPrime  = 0x100000001b3
)

// name reads the name at b[at:] into Name and NameHash and returns where it ends.
func (m *dnsMessage) name(b []byte, at int) (end int, err error) {
	hash := uint64(fnvOffset)
	text := m.text[:0]
	wire, low := 0, at // low: pointers must lead before here
	for pointers := 0; ; {
		if at >= len(b) {
			return 0, errDNSCut
		}
		l := int(b[at])
		if l >= 0xc0 {
			if at+2 > len(b) {
				return 0, errDNSCut
			}
			target := int(be16(b[at:])) & 0x3fff
			if pointers++; target >= low || target < dnsHeader || pointers > dnsPointers {
				return 0, errDNSName
			}
			if end == 0 {
				end = at + 2
			}
			at, low = target, target
			continue
		}
		if l > 63 { // RFC 1035 §4.1.4: 01 and 10 are reserved
			return 0, errDNSName
		}
		if wire += l + 1; wire > dnsNameWire {
			return 0, errDNSName
		}
		hash = (hash ^ uint64(l)) * fnvPrime
		at++
		if l == 0 {
			break
		}
		if at+l > len(b) {
			return 0, errDNSCut
		}
		if wire > l+1 { // not the first label
			text = m.put(text, '.')
		}
		for _, c := range b[at : at+l] {
			if c-'A' < 26 {
				c += 'a' - 'A'
			}
			hash = (hash ^ uint64(c)) * fnvPrime
			if c > ' ' && c < 0x7f && c != '.' && c != '\\' && len(text) < len(m.text) {
				text = append(text, c)
			} else {
				text = m.escape(text, c)
			}
		}
		at += l
	}
	if end == 0 {
		end = at
	}
	if len(text) == 0 {
		text = append(text, '.')
	}
	m.Name, m.NameHash = text, hash
	return end, nil
}

// escape appends a byte of a label that needs escaping, whole or not at all.
func (m *dnsMessage) escape(text []byte, c byte) []byte {
	if m.NameCut {
		return text
	}
	if c > ' ' && c < 0x7f {
		if c != '.' && c != '\\' {
			return m.put(text, c)
		}
		if len(text)+2 <= cap(text) {
			return append(text, '\\', c)
		}
	} else if len(text)+4 <= cap(text) {
		return append(text, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
	}
	m.NameCut = true
	return text
}

func (m *dnsMessage) put(text []byte, c byte) []byte {
	if m.NameCut || len(text) == cap(text) {
		m.NameCut = true
		return text
	}
	return append(text, c)
}

// edns looks for the OPT record (RFC 6891 §6.1.2) among the additional records,
// which follow skip others. What was not captured is not there.
func (m *dnsMessage) edns(b []byte, at, skip, additional int) {
	for q := uint16(1); q < m.QDCount; q++ { // further questions; nobody sends them
		if at = skipName(b, at); at < 0 || at+4 > len(b) || q > dnsRecords {
			return
		}
		at += 4
	}
	for i := 0; i < skip+additional && i < dnsRecords; i++ {
		root := at < len(b) && b[at] == 0
		if at = skipName(b, at); at < 0 || at+10 > len(b) {
			return
		}
		if i >= skip && root && be16(b[at:]) == dnsTypeOPT {
			m.HasEDNS = true
			m.EDNSSize = be16(b[at+2:])
			if x := b[at+4]; x < 16 {
				m.Rcode |= x << 4
			} else {
				m.Rcode = 255
			}
			return
		}
		at += 10 + int(be16(b[at+8:]))
	}
}

// skipName returns where the name at b[at:] ends, or −1.
func skipName(b []byte, at int) int {
	for at < len(b) {
		l := int(b[at])
		switch {
		case l == 0:
			return at + 1
		case l >= 0xc0:
			return at + 2
		case l > 63:
			return -1
		}
		at += l + 1
	}
	return -1
}

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
