//go:build linux

package host

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"jindan/capture"
)

const (
	// maxFile bounds what is read of a file, in bytes: softnet_stat is the largest, with some 140 bytes a CPU, and Linux runs on
	// up to 8,192 CPUs (CONFIG_NR_CPUS).
	maxFile = 2 << 20
	// reopenEvery is how many samples pass between two attempts to open a file that is missing: a module such as
	// nf_conntrack may be loaded while the agent runs.
	reopenEvery = 30
)

// Failure is a file that could not be read or understood.
type Failure struct {
	File string // below the procfs root
	Err  error
}

// Counters reads the counters and limits of one network namespace from procfs. The files are opened once and read in place, so
// that a sample costs no path look-ups, and none of the namespace changes that opening in another namespace takes. It is not safe for
// concurrent use.
type Counters struct {
	root   string
	ns     netns.NsHandle
	files  []procFile
	buf    []byte
	tmp    capture.HostSample // what a file says, until it is known to be well-formed
	reopen int                // samples until the next attempt to open what is missing
}

// procFile is one file and what to do with it.
type procFile struct {
	name  string
	net   bool // below /proc/net, which belongs to a namespace by path
	host  bool // of the whole host, and only in the first namespace
	parse func([]byte, *capture.HostSample) error
	fd    int
	err   error
}

// NewCounters reads from the procfs mounted at root, for the network namespace ns (none or 0: the own one). For another
// namespace, root must be a procfs that shows this process.
func NewCounters(root string, ns netns.NsHandle) *Counters {
	return newCounters(root, ns, isFirst(root, own(ns)))
}

func newCounters(root string, ns netns.NsHandle, first bool) *Counters {
	files := []procFile{
		{name: "snmp", net: true, parse: parseSNMP},
		{name: "netstat", net: true, parse: parseSNMP},
		{name: "softnet_stat", net: true, parse: softnet().parse},
		{name: "sockstat", net: true, parse: parseSockstat},
		{name: "stat/nf_conntrack", net: true, parse: conntrack().parse},
		{name: "sys/net/netfilter/nf_conntrack_count", parse: parseConntrackCount},
		{name: "sys/net/netfilter/nf_conntrack_max", parse: parseConntrackMax},
		{name: "sys/fs/file-nr", parse: parseFileNr},
		{name: "sys/net/ipv4/ip_local_port_range", parse: parsePortRange},
		{name: "sys/net/ipv4/tcp_mem", host: true, parse: parseTCPMem},
	}
	if !first {
		// What the whole machine's receive backlog drops is no matter of one namespace.
		files = slices.DeleteFunc(files, func(f procFile) bool { return f.name == "softnet_stat" })
	}
	for i := range files {
		files[i].fd = -1
	}
	return &Counters{root: root, ns: own(ns), files: files, buf: make([]byte, 16<<10)}
}

// Read fills h but for Netns and Links. Values of files in Failures are 0 and, for counters, not Known.
func (c *Counters) Read(h *capture.HostSample) {
	*h = capture.HostSample{Netns: h.Netns, Links: h.Links}
	if c.reopen--; c.reopen < 0 {
		c.reopen = reopenEvery
		c.open()
	}
	for i := range c.files {
		f := &c.files[i]
		if f.fd < 0 {
			continue
		}
		b, err := c.content(f.fd)
		if err != nil { // the module behind it was unloaded
			unix.Close(f.fd)
			f.fd, f.err = -1, err
			continue
		}
		c.tmp = *h
		if f.err = f.parse(b, &c.tmp); f.err == nil {
			*h = c.tmp
		}
	}
}

// Failures names each file that could not be read or understood in the last sample, once.
func (c *Counters) Failures() []Failure {
	var all []Failure
	for i := range c.files {
		if f := &c.files[i]; f.err != nil {
			name := f.name
			if f.net {
				name = "net/" + name
			}
			all = append(all, Failure{name, f.err})
		}
	}
	return all
}

// Close closes the files.
func (c *Counters) Close() error {
	for i := range c.files {
		if f := &c.files[i]; f.fd >= 0 {
			unix.Close(f.fd)
			f.fd, f.err = -1, unix.EBADF
		}
	}
	return nil
}

// open opens what is not open.
func (c *Counters) open() {
	missing := 0
	for i := range c.files {
		if c.files[i].fd < 0 {
			missing++
		}
	}
	if missing == 0 {
		return
	}
	c.openIn("", true)
	err := inNetns(c.ns, func() error {
		c.openIn(netDir(c.root, c.ns), false)
		return nil
	})
	for i := range c.files {
		if f := &c.files[i]; err != nil && !f.host && f.fd < 0 {
			f.err = err
		}
	}
}

// openIn opens the missing files of the whole host, or those of the calling thread's namespace.
func (c *Counters) openIn(net string, host bool) {
	for i := range c.files {
		f := &c.files[i]
		if f.fd >= 0 || f.host != host {
			continue
		}
		path := c.root + "/" + f.name
		if f.net {
			path = net + "/" + f.name
		}
		f.fd, f.err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
}

// content reads a file from its beginning; procfs makes it anew then.
func (c *Counters) content(fd int) ([]byte, error) {
	n := 0
	for {
		if n == len(c.buf) {
			if n >= maxFile {
				return nil, fmt.Errorf("longer than %d bytes", maxFile)
			}
			c.buf = append(c.buf, make([]byte, n)...)
		}
		k, err := unix.Pread(fd, c.buf[n:], int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if k == 0 {
			break
		}
		n += k
	}
	if n == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return c.buf[:n], nil
}
