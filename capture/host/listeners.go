//go:build linux

package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"jindan/capture"
)

const (
	// maxListeners bounds the listening sockets that are followed; a server with more is a port forwarder.
	maxListeners = 4096
	// The pauses between two searches for the owner of one listener: a socket of the kernel (NFS) or of another user never gets one.
	minRetry, maxRetry = time.Second, 5 * time.Minute
	// maxCut is how many searches in a row, each with all of the budget, may be cut short and go on without a pause.
	maxCut = 16
	// packagesEvery is how often package databases are looked at: installing takes longer.
	packagesEvery = 10 * time.Second
)

// packageDatabases change whenever dpkg, or rpm (Berkeley DB, sqlite, ndb), installs or removes something.
var packageDatabases = []string{"/var/lib/dpkg/status", "/var/lib/rpm/Packages", "/var/lib/rpm/rpmdb.sqlite", "/var/lib/rpm/Packages.db"}

// listeners follows who owns the listening TCP sockets of a network namespace, and tells of processes that start and of
// software newer than the last boot.
type listeners struct {
	ns    netns.NsHandle
	procs *Processes
	look  Looker
	emit  func(capture.Change)
	diag  *nl.SocketHandle // nil: not open

	sockets  map[uint32]*listener
	owners   map[procKey]bool // those told of
	began    time.Duration    // of the first round, since boot
	rounds   bool             // there was one
	told     map[string]int64 // file: the mtime told of, ns
	packages time.Duration    // when the databases are due, since boot
}

// listener is one listening socket.
type listener struct {
	owner       procKey       // zero: not found
	retry, next time.Duration // pause, and when to search again, since boot
	cut         int           // searches so far, most of them cut short
	seen        bool
}

func newListeners(ns netns.NsHandle, procs *Processes, look Looker, emit func(capture.Change)) *listeners {
	return &listeners{ns: ns, procs: procs, look: look, emit: emit,
		sockets: map[uint32]*listener{}, owners: map[procKey]bool{}, told: map[string]int64{}}
}

// round looks for new listeners, new owners, and new software.
func (l *listeners) round() error {
	now := l.procs.boot()
	if !l.rounds {
		l.rounds, l.began = true, now
	}
	if now >= l.packages {
		l.packages = now + packagesEvery
		for _, file := range packageDatabases {
			if info, err := os.Stat(file); err == nil {
				l.newer(file, info.ModTime(), "packages were installed, changed or removed")
			}
		}
	}
	err := l.list()
	var wanted []uint32
	alive := map[procKey]bool{}
	for inode, s := range l.sockets {
		if !s.seen {
			delete(l.sockets, inode)
			continue
		}
		s.seen = false
		if s.owner.pid != 0 && !l.lives(s.owner, alive) { // another process has the socket now, or it is about to go
			*s = listener{}
		}
		if s.owner.pid == 0 && now >= s.next {
			wanted = append(wanted, inode)
		}
	}
	if len(wanted) > 0 {
		pids, cut := l.look.Find(wanted)
		for inode, pid := range pids {
			if st, ok := l.procs.started(pid); ok {
				k := procKey{pid, st.start}
				l.sockets[inode].owner = k
				l.owner(k, st.comm, now)
			}
		}
		for _, inode := range wanted {
			s := l.sockets[inode]
			if s.cut++; !cut || s.cut > maxCut { // it was searched for everywhere
				s.retry = min(max(2*s.retry, minRetry), maxRetry)
				s.next = now + s.retry
			}
		}
	}
	for k := range l.owners {
		if !l.lives(k, alive) {
			delete(l.owners, k)
		}
	}
	return err
}

// lives reports whether the process is still the same; alive remembers the answers of this round.
func (l *listeners) lives(k procKey, alive map[procKey]bool) bool {
	is, known := alive[k]
	if !known {
		st, ok := l.procs.started(k.pid)
		is = ok && st.start == k.start
		alive[k] = is
	}
	return is
}

// owner tells of a process that owns a listener, once.
func (l *listeners) owner(k procKey, comm string, now time.Duration) {
	if l.owners[k] {
		return
	}
	l.owners[k] = true
	who := fmt.Sprintf("%s (pid %d)", comm, k.pid)
	if k.start > l.began {
		l.emit(capture.Change{Kind: capture.ChangeProcessStart, When: l.procs.instant(k.start), What: who,
			Detail: fmt.Sprintf("started %.1f s before its listener was seen", (now - k.start).Seconds())})
	}
	exe, modified, err := l.look.Exe(k.pid)
	if err != nil { // another user's
		return
	}
	exe, gone := strings.CutSuffix(exe, " (deleted)")
	why := "runs as " + who
	if gone {
		why += ", and was replaced or removed since"
	}
	l.newer(exe, modified, why)
}

// newer tells of a file that was modified after the last boot, once for each time of modification.
func (l *listeners) newer(what string, at time.Time, why string) {
	if at.UnixNano() <= int64(l.procs.instant(0)) || l.told[what] == at.UnixNano() {
		return
	}
	if len(l.told) >= maxListeners {
		clear(l.told)
	}
	l.told[what] = at.UnixNano()
	l.emit(capture.Change{Kind: capture.ChangeSoftware, When: capture.Instant(at.UnixNano()), What: what,
		Detail: fmt.Sprintf("modified at %s, after the last boot; %s", at.UTC().Format(time.RFC3339), why)})
}

// list marks the listening sockets. A dump of LISTEN alone does not touch the table of connections, as /proc/net/tcp6
// does (inet_diag_dump_icsk in net/ipv4/inet_diag.c): its cost depends on the listeners only.
func (l *listeners) list() error {
	if l.diag == nil {
		s, err := nl.GetNetlinkSocketAt(l.ns, netns.None(), unix.NETLINK_INET_DIAG)
		if err != nil {
			return fmt.Errorf("open a socket for inet_diag: %w", err)
		}
		l.diag = &nl.SocketHandle{Socket: s}
		limit := unix.NsecToTimeval(int64(answerTime))
		if err = s.SetReceiveTimeout(&limit); err != nil {
			return fmt.Errorf("limit the time of inet_diag requests: %w", err)
		}
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := l.dump(family); err != nil {
			l.close() // with a new socket next time: answers to this request may still come
			return fmt.Errorf("list listening sockets (needs the module tcp_diag): %w", err)
		}
	}
	return nil
}

// Of struct inet_diag_req_v2 and inet_diag_msg (include/uapi/linux/inet_diag.h): lengths and offsets, in bytes.
const (
	diagRequest      = 56
	diagStates       = 4
	diagMessage      = 72
	diagInode        = 68
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY
)

func (l *listeners) dump(family byte) error {
	var body [diagRequest]byte
	body[0], body[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(body[diagStates:], capture.Listen.Mask())
	r := nl.NewNetlinkRequest(sockDiagByFamily, unix.NLM_F_DUMP)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_INET_DIAG: l.diag}
	r.AddRawData(body[:])
	err := r.ExecuteIter(unix.NETLINK_INET_DIAG, sockDiagByFamily, func(m []byte) bool {
		if len(m) < diagMessage {
			return true
		}
		inode := binary.NativeEndian.Uint32(m[diagInode:])
		if known := l.sockets[inode]; known != nil {
			known.seen = true
		} else if inode != 0 && len(l.sockets) < maxListeners {
			l.sockets[inode] = &listener{seen: true}
		}
		return true
	})
	if errors.Is(err, nl.ErrDumpInterrupted) { // listeners came or went; what is missing is found next time
		return nil
	}
	return err
}

func (l *listeners) close() {
	if l.diag != nil {
		l.diag.Socket.Close()
		l.diag = nil
	}
}
