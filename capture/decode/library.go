package decode

import (
	"encoding/binary"
	"reflect"
	"unsafe"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"jindan/capture"
)

// library holds gopacket's layers, one of each, reused for every packet. They read
// the headers in which speed does not matter and where version 1.1.19 is sound:
//
//   - GRE, VXLAN, ERSPAN II, EtherIP, LLC, SNAP, PFLog, Prism, radiotap, 802.11.
//
// Not so, and read by hand: Geneve and GTP-U (see there), MPLS, PPP, PPPoE, AH (only
// reachable through NewPacket, which allocates 7 times a packet), SLL2, NSH, ERSPAN III,
// L2TP, Teredo, PPI (unknown to it). Radiotap shifts bytes of its input in place
// and computes checksums, so it gets to see the header only.
type library struct {
	gre      layers.GRE
	vxlan    layers.VXLAN
	erspan2  layers.ERSPANII
	etherIP  layers.EtherIP
	llc      layers.LLC
	snap     layers.SNAP
	pflog    layers.PFLog
	prism    layers.PrismHeader
	radiotap layers.RadioTap
	dot11    layers.Dot11
	scratch  [dot11Header + dot11FCS]byte
}

// DropTables gives back the memory of gopacket's tables of what follows an EtherType and a PPP type: 6 MB that its package fills
// when the program starts. Only its NewPacket and NextLayerType read them, and a Decoder calls neither. A program calls it
// once, before it decodes; the tables are empty afterwards.
func DropTables() {
	for _, t := range []*[1 << 16]layers.EnumMetadata{&layers.EthernetTypeMetadata, &layers.PPPTypeMetadata} {
		// The types without a name share an array of decoders, that of type 1 being near its begin and that of 0xffff its end.
		first, last := reflect.ValueOf(t[1].DecodeWith), reflect.ValueOf(t[1<<16-1].DecodeWith)
		if first.Kind() == reflect.Pointer && first.Type() == last.Type() {
			if size := last.Pointer() - first.Pointer(); size == (1<<16-2)*first.Type().Elem().Size() {
				drop(first.UnsafePointer(), size)
			}
		}
		drop(unsafe.Pointer(t), unsafe.Sizeof(*t))
	}
}

// layer is what library needs of a gopacket layer.
type layer interface {
	DecodeFromBytes([]byte, gopacket.DecodeFeedback) error
}

// read lets l decode b. Several of gopacket's layers index without looking at the
// length; that panic is an error like any other.
func read(l layer, b []byte) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	return l.DecodeFromBytes(b, gopacket.NilDecodeFeedback) == nil
}

// gre reads RFC 2784 with the extensions of RFC 2890 (key, sequence) and RFC 2637
// (version 1, acknowledgement). Source routes (RFC 1701) are refused as RFC 2784
// §2.1 has it; gopacket would allocate for each.
func (d *Decoder) gre(b []byte, n int, p *capture.Packet) capture.LossReason {
	if len(b) < 4 {
		return short(n, 4)
	}
	const routing = 0x40
	g := &d.lib.gre
	if b[0]&routing != 0 {
		return capture.LossTransport
	}
	if !read(g, b) {
		return short(n, 16) // its longest, without source routes
	}
	if g.Version > 1 {
		return capture.LossTransport
	}
	return d.grePayload(uint16(g.Protocol), g.SeqPresent, g.Payload, n-len(g.Contents), p)
}

// erspan2 reads draft-foschiano-erspan-03 §4.2.
func (d *Decoder) erspan2(b []byte, n int, p *capture.Packet) capture.LossReason {
	e := &d.lib.erspan2
	if !read(e, b) {
		return short(n, 8)
	}
	return d.ethernet(e.Payload, n-len(e.Contents), p)
}

// etherIP reads RFC 3378 §3.
func (d *Decoder) etherIP(b []byte, n int, p *capture.Packet) capture.LossReason {
	e := &d.lib.etherIP
	if !read(e, b) {
		return short(n, 2)
	}
	return d.ethernet(e.Payload, n-len(e.Contents), p)
}

// vxlan reads RFC 7348 §5, which wants the reserved bits ignored. strict wants them
// zero, as Linux sends them: it serves the port that is not VXLAN's by right.
func (d *Decoder) vxlan(b []byte, n int, strict bool, p *capture.Packet) capture.LossReason {
	v := &d.lib.vxlan
	if !read(v, b) {
		return short(n, 8)
	}
	if !v.ValidIDFlag || strict && (be32(b) != 0x08000000 || b[7] != 0) {
		return capture.LossNotIP
	}
	return d.ethernet(v.Payload, n-len(v.Contents), p)
}

// LLC service access points (IEEE 802.2) and the SNAP organization codes whose
// type is an EtherType (RFC 1042; IEEE 802.1H).
const (
	sapSNAP     = 0xaa
	sapIP       = 0x06
	llcUI       = 0x03
	ouiEthernet = 0x000000
	oui8021H    = 0x0000f8
)

// llc reads IEEE 802.2 LLC and SNAP.
func (d *Decoder) llc(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if !d.step() {
		return capture.LossNesting
	}
	l := &d.lib.llc
	if !read(l, b) {
		return short(wire, 4)
	}
	if l.Control != llcUI {
		return capture.LossNotIP
	}
	wire -= len(l.Contents)
	if l.DSAP == sapIP && l.SSAP == sapIP {
		return d.ip(l.Payload, wire, p)
	}
	if l.DSAP != sapSNAP || l.SSAP != sapSNAP {
		return capture.LossNotIP
	}
	s := &d.lib.snap
	if !read(s, l.Payload) {
		return short(wire, 5)
	}
	o := s.OrganizationalCode
	switch uint32(o[0])<<16 | uint32(o[1])<<8 | uint32(o[2]) {
	case ouiEthernet, oui8021H:
		if s.Type > maxEtherLength {
			return d.ether(uint16(s.Type), s.Payload, wire-len(s.Contents), p)
		}
	}
	return capture.LossNotIP
}

// pflog reads OpenBSD's packet filter log.
func (d *Decoder) pflog(b []byte, wire int, p *capture.Packet) capture.LossReason {
	f := &d.lib.pflog
	if !read(f, b) {
		return short(wire, 64)
	}
	switch f.Direction {
	case layers.PFDirectionIn:
		p.Dir = capture.DirInbound
	case layers.PFDirectionOut:
		p.Dir = capture.DirOutbound
	case layers.PFDirectionInOut: // not known
	}
	return d.family(uint32(f.Family), f.Payload, wire-len(f.Contents), p)
}

// prism reads the header of Prism cards. Some drivers write an AVS header under the same
// link type; its magic tells.
func (d *Decoder) prism(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if len(b) >= 4 && be32(b)&0xfffff000 == 0x80211000 {
		return d.avs(b, wire, p)
	}
	h := &d.lib.prism
	if !read(h, b) {
		return short(wire, 144) // its usual length
	}
	return d.wifi(h.Payload, wire-len(h.Contents), p)
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

// radiotap reads https://www.radiotap.org/. Only the header goes to gopacket, which
// then gives up for want of a payload, with the flags already read.
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
	t := &d.lib.radiotap
	*t = layers.RadioTap{} // it keeps the flags of the packet before
	read(t, b[:n:n])
	return d.wifiPadded(b[n:], wire-n, t.Flags.Datapad(), p)
}

// Lengths of IEEE 802.11 in bytes: the longest header of a data frame (§9.3.2.1: 24,
// fourth address 6, QoS 2, HT 4) and the check sequence, which gopacket always cuts.
const (
	dot11Header = 36
	dot11FCS    = 4
	dot11NoData = 0x10 // in layers.Dot11Type: the subtype's bit for frames without data
)

func (d *Decoder) wifi(b []byte, wire int, p *capture.Packet) capture.LossReason {
	return d.wifiPadded(b, wire, false, p)
}

// wifiPadded reads an IEEE 802.11 data frame. gopacket takes the last 4 bytes for the
// check sequence, which many captures do not have: it gets the header and 4 bytes.
// What is encrypted or aggregated stays unread.
func (d *Decoder) wifiPadded(b []byte, wire int, padded bool, p *capture.Packet) capture.LossReason {
	m := &d.lib.dot11
	n := copy(d.lib.scratch[:dot11Header], b)
	if !read(m, d.lib.scratch[:n+dot11FCS]) {
		return short(wire, dot11Header)
	}
	hl := len(m.Contents)
	if m.Type.MainType() != layers.Dot11TypeData || m.Type&dot11NoData != 0 {
		return capture.LossNotIP
	}
	if m.Flags.WEP() || m.Flags.MF() || m.FragmentNumber != 0 || hl > len(b) {
		return capture.LossLinkType
	}
	if qos := hl - 2; m.Type.QOS() && !m.Flags.Order() && qos >= 0 && b[qos]&0x80 != 0 {
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
