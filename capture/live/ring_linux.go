package live

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"jindan/capture"
)

const (
	// blockBytes is the size of a ring's block. The kernel wants whole pages (arm64 has some of 64 KiB), and cuts packets that
	// are longer. The block time-out uses up a block for a single packet, too: smaller blocks let a
	// reader be late for longer, 6 s with the defaults.
	blockBytes = 64 << 10
	// frameBytes only has to divide blockBytes; TPACKET_V3 packs packets by their length.
	frameBytes = 2048
	tagBytes   = 4 // IEEE 802.1Q §9.3
)

// Offsets in the structures of linux/if_packet.h.
const (
	blockStatus = 8  // tpacket_block_desc.hdr.bh1.block_status
	blockCount  = 12 // num_pkts
	blockFirst  = 16 // offset_to_first_pkt

	headNext    = 0 // tpacket3_hdr.tp_next_offset
	headSec     = 4
	headNsec    = 8
	headSnap    = 12
	headLen     = 16
	headStatus  = 20
	headMAC     = 24
	headTCI     = 32 // hv1.tp_vlan_tci
	headTPID    = 36 // hv1.tp_vlan_tpid
	headBytes   = unix.SizeofTpacket3Hdr
	addrHatype  = headBytes + 8 // sockaddr_ll.sll_hatype
	addrPkttype = headBytes + 10
	addrEnd     = headBytes + unix.SizeofSockaddrLinklayer
)

// ring is one packet socket with its ring. Its fd and memory stay valid until close.
type ring struct {
	name    string // of the interface
	ifindex int    // 0: all
	fd      int
	mem     []byte
	group   fanout

	block int    // the next one to be read
	inUse bool   // block is ours and has packets left
	left  uint32 // packets in block not taken yet
	pos   uint32 // offset of the next one in block
	lost  uint64 // dropped in front of the next packet, not reported yet

	leaving capture.Instant // when the interface was found gone; 0: it is there
}

// hint adds to errors of the kernel what the user can do.
func hint(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: capturing needs CAP_NET_RAW (another network namespace also CAP_SYS_ADMIN): run as root, "+
			"or with AmbientCapabilities=CAP_NET_RAW in the unit", err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: there is no such interface; `ip link` lists them", err)
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOBUFS):
		return fmt.Errorf("%w: too little kernel memory for the ring; make it smaller", err)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w: the kernel has no packet sockets (CONFIG_PACKET)", err)
	}
	return err
}

// fanout says which group of rings to join: noFanout, newFanout, or the identifier of one.
type fanout int

const (
	noFanout  fanout = -1
	newFanout fanout = -2
)

// openRing opens a ring on an interface, in the network namespace of the calling thread. The ring takes no packets before
// attach gives it a filter.
func openRing(name string, o *Options, group fanout) (*ring, error) {
	open := o.Socket
	if open == nil {
		open = packetSocket
	}
	fd, err := open()
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", hint(err))
	}
	r := &ring{name: name, fd: fd}
	if err := r.setUp(o, group); err != nil {
		r.close()
		return nil, fmt.Errorf("capture on %s: %w", name, err)
	}
	return r, nil
}

// packetSocket opens one that is bound to nothing yet: its protocol is 0.
func packetSocket() (int, error) {
	return unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
}

func (r *ring) setUp(o *Options, group fanout) error {
	if r.name != Any {
		var err error
		if r.ifindex, err = interfaceIndex(r.fd, r.name); err != nil {
			return hint(err)
		}
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("the kernel has no TPACKET_V3 (Linux 3.2 and newer have): %w", err)
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_RESERVE, tagBytes); err != nil {
		return fmt.Errorf("reserve room for VLAN tags: %w", err)
	}
	if err := r.attach(refuseAll); err != nil {
		return err
	}
	blocks := max(2, (o.RingBytes+blockBytes-1)/blockBytes)
	req := unix.TpacketReq3{Block_size: blockBytes, Block_nr: uint32(blocks), Frame_size: frameBytes,
		Frame_nr: uint32(blocks * (blockBytes / frameBytes)), Retire_blk_tov: uint32(o.BlockTimeout.Milliseconds())}
	if err := unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return fmt.Errorf("set up a ring of %d bytes: %w", blocks*blockBytes, hint(err))
	}
	var err error
	r.mem, err = unix.Mmap(r.fd, 0, blocks*blockBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the ring: %w", hint(err))
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)) // network byte order
	if err := unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: r.ifindex}); err != nil {
		return fmt.Errorf("bind: %w", hint(err))
	}
	if group == noFanout {
		return nil
	}
	if err := r.join(group); err != nil {
		return fmt.Errorf("spread packets over several rings: %w", err)
	}
	return nil
}

// join shares the packets with other rings; PACKET_FANOUT_HASH, which is 0, gives both directions of a connection one ring.
func (r *ring) join(group fanout) error {
	argument := int(group) // 0 is an identifier like others
	if group == newFanout {
		argument = unix.PACKET_FANOUT_FLAG_UNIQUEID << 16
	}
	err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_FANOUT, argument)
	if group == newFanout && errors.Is(err, unix.EINVAL) { // before Linux 4.12
		err = unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_FANOUT, (os.Getpid()+r.ifindex)&0xffff|1)
	}
	if err != nil {
		return err
	}
	id, err := unix.GetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
	r.group = fanout(id & 0xffff)
	return err
}

// interfaceIndex asks in the network namespace of the socket.
func interfaceIndex(fd int, name string) (int, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("%q cannot be an interface: names have 1 to %d bytes", name, unix.IFNAMSIZ-1)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, err
	}
	return int(int32(req.Uint32())), nil
}

// refuseAll takes no packet.
var refuseAll = []bpf.RawInstruction{{Op: 0x06}} // ret #0

// prelude refuses what the loopback interface sends: it comes again as received.
var prelude = func() []bpf.RawInstruction {
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLinkLayerType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ARPHRD_LOOPBACK, SkipTrue: 3},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic(err) // the instructions above are constant
	}
	return raw
}()

// attach replaces the filter; a packet is judged by the one or by the other.
func (r *ring) attach(program []bpf.RawInstruction) error {
	code := make([]unix.SockFilter, len(program))
	for i, in := range program {
		code[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if err := unix.SetsockoptSockFprog(r.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("attach a filter of %d instructions to %s: %w", len(code), r.name, hint(err))
	}
	return nil
}

// status is the word by which kernel and reader hand a block over; both sides order their other accesses by it.
func (r *ring) status() *uint32 {
	return (*uint32)(unsafe.Pointer(&r.mem[r.block*blockBytes+blockStatus]))
}

func word(b []byte, at uint32) uint32 { return binary.NativeEndian.Uint32(b[at:]) }

// ready says that a packet can be taken. losing says that it comes from a block just begun, in front of which the
// kernel dropped packets.
func (r *ring) ready() (ok, losing bool) {
	for !r.inUse {
		status := atomic.LoadUint32(r.status())
		if status&unix.TP_STATUS_USER == 0 {
			return false, false
		}
		b := r.mem[r.block*blockBytes:]
		r.left, r.pos, r.inUse = word(b, blockCount), word(b, blockFirst), true
		losing = losing || status&unix.TP_STATUS_LOSING != 0
		if r.left == 0 {
			r.release()
		}
	}
	return true, losing
}

// release gives the block back to the kernel.
func (r *ring) release() {
	atomic.StoreUint32(r.status(), unix.TP_STATUS_KERNEL)
	r.inUse = false
	r.block = (r.block + 1) % (len(r.mem) / blockBytes)
}

// head is the packet to be taken next, from its tpacket3_hdr to the end of the block; nil if what the kernel wrote makes no sense.
func (r *ring) head() []byte {
	b := r.mem[r.block*blockBytes:][:blockBytes]
	if r.pos > blockBytes-addrEnd {
		return nil
	}
	b = b[r.pos:]
	mac, snap := uint64(binary.NativeEndian.Uint16(b[headMAC:])), uint64(word(b, headSnap))
	if mac < addrEnd || mac+snap > uint64(len(b)) {
		return nil
	}
	return b
}

// at is the time of the packet to be taken next.
func (r *ring) at() capture.Instant {
	if b := r.head(); b != nil {
		return capture.Instant(word(b, headSec))*capture.Instant(time.Second) + capture.Instant(word(b, headNsec))
	}
	return 0
}

// next goes on to the packet after head, in this block or the next one.
func (r *ring) next() {
	b := r.head()
	r.left--
	if b == nil || r.left == 0 {
		r.release()
		return
	}
	step := word(b, headNext)
	if step == 0 || step > blockBytes-r.pos {
		r.release()
		return
	}
	r.pos += step
}

// frame returns the captured bytes of a packet and its length on the wire, with the tag that the kernel took out.
func frame(head []byte) (data []byte, wire int) {
	mac, snap := uint32(binary.NativeEndian.Uint16(head[headMAC:])), word(head, headSnap)
	wire = int(word(head, headLen))
	status := word(head, headStatus)
	const addresses = 12 // bytes of Ethernet before the tag
	if status&unix.TP_STATUS_VLAN_VALID == 0 || snap < addresses || linkType(head) != linkEthernet {
		return head[mac : mac+snap], wire
	}
	tpid := uint16(unix.ETH_P_8021Q)
	if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 { // since Linux 3.14
		tpid = binary.NativeEndian.Uint16(head[headTPID:])
	}
	data = head[mac-tagBytes : mac+snap] // PACKET_RESERVE made room
	copy(data, data[tagBytes:tagBytes+addresses])
	binary.BigEndian.PutUint16(data[addresses:], tpid)
	binary.BigEndian.PutUint16(data[addresses+2:], uint16(word(head, headTCI)))
	return data, wire + tagBytes
}

// LINKTYPE_ values (https://www.tcpdump.org/linktypes.html); linkNone is none of them.
const (
	linkEthernet = 1
	linkRaw      = 101
	linkNone     = 0xffff
)

// arphrdRawIP is ARPHRD_RAWIP (linux/if_arp.h).
const arphrdRawIP = 519

// linkType tells what a packet begins with. Devices without a header of their own deliver IP.
func linkType(head []byte) uint16 {
	switch binary.NativeEndian.Uint16(head[addrHatype:]) {
	case unix.ARPHRD_ETHER, unix.ARPHRD_LOOPBACK:
		return linkEthernet
	case unix.ARPHRD_NONE, arphrdRawIP, unix.ARPHRD_TUNNEL, unix.ARPHRD_TUNNEL6, unix.ARPHRD_SIT, unix.ARPHRD_IPGRE,
		unix.ARPHRD_IP6GRE, unix.ARPHRD_PPP:
		return linkRaw
	}
	return linkNone
}

func direction(head []byte) capture.Direction {
	switch head[addrPkttype] {
	case unix.PACKET_HOST:
		return capture.DirInbound
	case unix.PACKET_OUTGOING:
		return capture.DirOutbound
	}
	return capture.DirOther
}

// drops returns how many packets the kernel dropped since it was asked before, and how often the ring was full.
func (r *ring) drops() (drops, freezes uint32) {
	s, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, 0 // fails only for a closed socket
	}
	return s.Drops, s.Freeze_q_cnt
}

func (r *ring) close() {
	if r.mem != nil {
		_ = unix.Munmap(r.mem) // what was mapped here can be unmapped
		r.mem = nil
	}
	_ = unix.Close(r.fd)
	r.fd, r.inUse = -1, false
}
