package decode_test

import (
	"encoding/binary"
	"strings"
)

// dnsQuery builds a query.
func dnsQuery(name string, typ uint16) []byte {
	b := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, l := range strings.Split(name, ".") {
		if l != "" {
			b = append(append(b, byte(len(l))), l...)
		}
	}
	b = append(b, 0)
	b = binary.BigEndian.AppendUint16(b, typ)
	return binary.BigEndian.AppendUint16(b, 1)
}
