package decode

import (
	"encoding/binary"

	"jindan/capture"
)

// prism reads the header of Prism cards: message code, length, the device's name, values of 12 bytes. Some drivers write an AVS
// header under the same link type; its magic tells.
func (d *Decoder) prism(b []byte, wire int, p *capture.Packet) capture.LossReason {
	const header, value, usual = 24, 12, 144
	if len(b) >= 4 && be32(b)&0xfffff000 == 0x80211000 {
		return d.avs(b, wire, p)
	}
	if len(b) < header {
		return short(wire, usual)
	}
	code, l := binary.LittleEndian.Uint16(b), int(binary.LittleEndian.Uint16(b[4:]))
	if code != 0x44 && code != 0x41 || l < header || (l-header)%value != 0 || l > len(b) {
		return short(wire, usual)
	}
	return d.wifi(b[l:], wire-l, p)
}

// avs skips an AVS header: magic, length, both big-endian.
func (d *Decoder) avs(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if len(b) < 8 {
		return short(wire, 8)
	}
	n := be32(b[4:])
	if n < 8 || int64(n) > int64(wire) {
		return capture.LossMalformed
	}
	if int(n) > len(b) {
		return capture.LossTruncated
	}
	return d.wifi(b[n:], wire-int(n), p)
}

// radiotap reads https://www.radiotap.org/.
func (d *Decoder) radiotap(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if len(b) < 8 {
		return short(wire, 8)
	}
	n := int(binary.LittleEndian.Uint16(b[2:]))
	if n < 8 || n > wire {
		return capture.LossMalformed
	}
	if n > len(b) {
		return capture.LossTruncated
	}
	return d.wifiPadded(b[n:], wire-n, radiotapFlags(b[:n])&radiotapPadded != 0, p)
}

// radiotapPadded is the flag of a header of IEEE 802.11 that is filled up to 32 bits.
const radiotapPadded = 0x20

// radiotapFlags is the field Flags, the second of all; 0 if it is not there. Before it are words that say which fields there are, of
// which the highest bit announces another one, and the time (TSFT), aligned to 8 bytes.
func radiotapFlags(b []byte) byte {
	const time, flags, more = 1, 2, 0x80
	at := 8
	for ; b[at-1]&more != 0; at += 4 {
		if at+4 > len(b) {
			return 0
		}
	}
	if b[4]&time != 0 {
		at = (at+7)&^7 + 8
	}
	if b[4]&flags == 0 || at >= len(b) {
		return 0
	}
	return b[at]
}

// Frame control of IEEE 802.11 (§9.2.4.1): the first byte holds type and subtype, the second the flags.
const (
	dot11Type   = 0x0c
	dot11Mgmt   = 0x00
	dot11Data   = 0x08
	dot11NoData = 0x40 // of the subtypes of data: frames without data
	dot11QoS    = 0x80 // of the subtypes of data

	dot11FourAddresses = 0x03 // both to and from the distribution system
	dot11MoreFragments = 0x04
	dot11Protected     = 0x40
	dot11Order         = 0x80 // with QoS: an HT control field

	dot11Longest = 36 // bytes of header: 24, fourth address 6, QoS 2, HT 4 (§9.3.2.1)
)

// dot11Len is the length of the header that starts with two bytes of frame control.
func dot11Len(b []byte) int {
	l := 24
	switch b[0] & dot11Type {
	case dot11Data:
		if b[1]&dot11FourAddresses == dot11FourAddresses {
			l += 6
		}
		if b[0]&dot11QoS == 0 {
			return l
		}
		l += 2
	case dot11Mgmt:
	default:
		return 10 // of the shortest control frame
	}
	if b[1]&dot11Order != 0 {
		l += 4
	}
	return l
}

func (d *Decoder) wifi(b []byte, wire int, p *capture.Packet) capture.LossReason {
	return d.wifiPadded(b, wire, false, p)
}

// wifiPadded reads an IEEE 802.11 data frame. What is encrypted or aggregated stays unread.
func (d *Decoder) wifiPadded(b []byte, wire int, padded bool, p *capture.Packet) capture.LossReason {
	if len(b) < 2 || len(b) < dot11Len(b) {
		return short(wire, dot11Longest)
	}
	hl := dot11Len(b)
	if b[0]&dot11Type != dot11Data || b[0]&dot11NoData != 0 {
		return capture.LossNotIP
	}
	if b[1]&(dot11Protected|dot11MoreFragments) != 0 || b[22]&0x0f != 0 { // the number of the fragment
		return capture.LossLinkType
	}
	if b[0]&dot11QoS != 0 && b[1]&dot11Order == 0 && b[hl-2]&0x80 != 0 {
		return capture.LossLinkType // A-MSDU: several packets in one frame
	}
	if d.ips == 0 {
		d.setMACs(b[4:], p) // receiver and transmitter
	}
	if padded {
		hl = (hl + 3) &^ 3
		if hl > len(b) {
			return short(wire, hl)
		}
	}
	return d.llc(b[hl:], wire-hl, p)
}
