package sockets

import (
	"errors"
	"fmt"
	"time"

	"jindan/capture"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// MaxSockets is how many sockets a dump keeps: at some 300 bytes each, 150 MB. Others are counted
// in [Dumper.Lost].
const MaxSockets = 500_000

// answerWithin bounds the wait for each part of a dump. The kernel answers within the system call
// that asks; it only takes longer if it cannot answer at all.
const answerWithin = 5 * time.Second

// receiveSize holds any datagram of a dump: the kernel makes them as large as the buffer that was last
// read into, up to 32 KiB (netlink_recvmsg).
const receiveSize = 64 << 10

// Dumper lists the TCP sockets of one network namespace. It needs no privilege beyond that of
// entering the namespace. Its methods must not run concurrently.
type Dumper struct {
	where     string
	socket    *nl.NetlinkSocket
	request   []byte // the netlink message
	seq       uint32
	max       int
	buf       []byte
	running   bool // a dump was begun and not read to its end
	overCap   uint64
	malformed uint64
}

// Open prepares dumps of the network namespace at path, such as /run/netns/NAME or /proc/PID/ns/net
// ("": the caller's own). Entering another one takes CAP_SYS_ADMIN.
func Open(path string) (*Dumper, error) {
	d := &Dumper{where: "TCP sockets", max: MaxSockets, buf: make([]byte, receiveSize)}
	ns := netns.None()
	if path != "" {
		d.where += " of network namespace " + path
		var err error
		if ns, err = netns.GetFromPath(path); err != nil {
			return nil, fmt.Errorf("open %s: %w", d.where, err)
		}
		defer ns.Close()
	}
	socket, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d.where, err)
	}
	if err := prepare(socket.GetFd()); err != nil {
		socket.Close()
		return nil, fmt.Errorf("open %s: %w", d.where, err)
	}
	d.socket = socket
	r := nl.NewNetlinkRequest(requestKind, unix.NLM_F_DUMP)
	r.AddRawData(make([]byte, requestSize))
	d.request = r.Serialize()
	return d, nil
}

// prepare connects a netlink socket to the kernel, so that nobody else can send to it, and makes
// reads of it wait.
func prepare(fd int) error {
	if err := unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	timeout := unix.NsecToTimeval(answerWithin.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return err
	}
	return unix.SetNonblock(fd, false)
}

// Dump replaces the sockets of t by those whose state is in states (SocketState.Mask), with tcp_info
// if info is set; it keeps the memory of t and does not touch t.Netns. They come in no order.
//
// Connections that have not been accepted, orphans, those in TIME_WAIT and connection requests
// (SYN_RECV, asked for as NewSynRecv from Linux 4.4 on) have no inode; the latter two have no tcp_info.
// Sockets asked for as BoundInactive are listed from Linux 6.8 on, with the state CLOSE that they are in.
//
// A dump is no snapshot: t.Interrupted says that the kernel noticed a change meanwhile, or that
// sockets are missing that [Dumper.Lost] counts. With an error t holds what was read until then.
func (d *Dumper) Dump(t *capture.SocketTable, states uint32, info bool) error {
	t.Sockets, t.States, t.Info, t.Interrupted = t.Sockets[:0], states, info, false
	in := intake{table: t, max: d.max}
	err := d.ask(&in)
	t.Interrupted = t.Interrupted || in.overCap+in.malformed > 0
	d.overCap += in.overCap
	d.malformed += in.malformed
	if err != nil {
		return fmt.Errorf("dump %s: %w", d.where, explain(err))
	}
	return nil
}

// ask makes a dump of the states of in.table.
func (d *Dumper) ask(in *intake) error {
	if err := d.drain(); err != nil {
		return err
	}
	d.seq++
	in.seq = d.seq
	native.PutUint32(d.request[8:], d.seq) // nlmsg_seq
	body := d.request[unix.SizeofNlMsghdr:]
	body[requestExt] = 1 << (attrSkMemInfo - 1)
	if in.table.Info {
		body[requestExt] |= 1 << (attrInfo - 1)
	}
	native.PutUint32(body[requestStates:], in.table.States)
	if _, err := unix.Write(d.socket.GetFd(), d.request); err != nil {
		return err
	}
	d.running = true
	for {
		n, err := unix.Read(d.socket.GetFd(), d.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		done, err := in.datagram(d.buf[:n])
		if done {
			d.running = false
			return err
		}
	}
}

// drain reads a dump that failed to its end: the kernel makes only one at a time.
func (d *Dumper) drain() error {
	for d.running {
		_, _, err := unix.Recvfrom(d.socket.GetFd(), d.buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			d.running = false
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		}
	}
	return nil
}

// Lost tells how many sockets were turned away by [MaxSockets] and how many messages could not be
// read, in all dumps.
func (d *Dumper) Lost() (overCap, malformed uint64) { return d.overCap, d.malformed }

// Close releases the netlink socket.
func (d *Dumper) Close() error {
	d.socket.Close()
	return nil
}
