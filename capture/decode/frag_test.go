package decode_test

import (
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// fragments4 cuts a transport payload into IPv4 packets of size bytes of payload.
func fragments4(t testing.TB, data []byte, size int, id uint16) (packets [][]byte) {
	for off := 0; off < len(data); off += size {
		ip := v4(layers.IPProtocolUDP)
		ip.Id, ip.FragOffset = id, uint16(off/8)
		end := min(off+size, len(data))
		if end < len(data) {
			ip.Flags = layers.IPv4MoreFragments
		}
		packets = append(packets, build(t, ip, gopacket.Payload(data[off:end])))
	}
	return packets
}
