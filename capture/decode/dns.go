package decode

// portNetBIOS names services in a form of its own that looks like DNS (RFC 1002 §4.2.1).
const portNetBIOS = 137

// Bounds of what is taken for a DNS message on a port that is not DNS's. They leave out what no resolver asks, so that
// the chance that other payload passes, some 70 fixed bits, is none.
const (
	maxShapeAdditional = 2   // of a query: OPT (RFC 6891 §6.1.1), TSIG (RFC 8945 §5.1)
	maxShapeRecords    = 64  // of each section of an answer
	maxShapeType       = 260 // IANA dns-parameters: the types below 256 are data, 260 is the last in use above
	maxShapeName       = 255 // bytes, RFC 1035 §2.3.4
)

// dnsShaped reports whether b, captured of a datagram of n bytes, is a standard query with one question, or the answer
// to one (RFC 1035 §4.1): name servers listen on other ports, too (Consul's 8600, node ports, dnsmasq behind a stub).
func dnsShaped(b []byte, n int) bool {
	const header = 12
	if len(b) < header+5 || be16(b[4:]) != 1 || b[2]&0x78 != 0 || b[3]&0x40 != 0 {
		return false // not one question, another opcode, or the bit that must be zero
	}
	an, ns, ar := be16(b[6:]), be16(b[8:]), be16(b[10:])
	query := b[2]&0x80 == 0
	switch {
	case query && (b[2]&0x06 != 0 || b[3]&0x8f != 0 || an != 0 || ns != 0 || ar > maxShapeAdditional):
		return false // AA, TC, RA or a response code in a query, or records
	case !query && (b[3]&0x0f > 10 || an > maxShapeRecords || ns > maxShapeRecords || ar > maxShapeRecords):
		return false
	}
	at := header
	for at < len(b) && b[at] != 0 {
		l := int(b[at])
		if l > 63 || at+1+l >= len(b) || at+1+l-header > maxShapeName {
			return false
		}
		for _, c := range b[at+1 : at+1+l] {
			if c <= ' ' || c >= 0x7f {
				return false
			}
		}
		at += 1 + l
	}
	if at+5 > len(b) {
		return false
	}
	t := be16(b[at+1:])
	return t > 0 && t <= maxShapeType && be16(b[at+3:]) == 1 && (!query || ar > 0 || at+5 == n)
}
