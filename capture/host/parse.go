//go:build linux

package host

import (
	"bytes"
	"errors"
	"fmt"

	"jindan/capture"
)

// The tables of /proc/net/snmp and netstat: a line of names and a line of values for each (Linux net/ipv4/proc.c).
var snmpTables = map[string]map[string]capture.Counter{
	"Tcp:": {"ActiveOpens": capture.ActiveOpens, "PassiveOpens": capture.PassiveOpens, "AttemptFails": capture.AttemptFails,
		"EstabResets": capture.EstabResets, "InSegs": capture.InSegs, "OutSegs": capture.OutSegs,
		"RetransSegs": capture.RetransSegs, "InErrs": capture.InErrs, "OutRsts": capture.OutRsts,
		"InCsumErrors": capture.InCsumErrors},
	"Udp:": {"InDatagrams": capture.UDPInDatagrams, "NoPorts": capture.UDPNoPorts, "InErrors": capture.UDPInErrors,
		"RcvbufErrors": capture.UDPRcvbufErrors, "SndbufErrors": capture.UDPSndbufErrors},
	"Ip:": {"InDiscards": capture.IPInDiscards, "OutNoRoutes": capture.IPOutNoRoutes, "ReasmFails": capture.IPReasmFails,
		"FragFails": capture.IPFragFails},
	"Icmp:": {"InDestUnreachs": capture.IcmpInDestUnreachs, "OutDestUnreachs": capture.IcmpOutDestUnreachs},
	"TcpExt:": {"ListenOverflows": capture.ListenOverflows, "ListenDrops": capture.ListenDrops,
		"TCPSynRetrans": capture.TCPSynRetrans, "TCPTimeouts": capture.TCPTimeouts,
		"TCPLostRetransmit": capture.TCPLostRetransmit, "TCPOrigDataSent": capture.TCPOrigDataSent,
		"TCPReqQFullDoCookies": capture.TCPReqQFullDoCookies, "TCPReqQFullDrop": capture.TCPReqQFullDrop,
		"SyncookiesSent": capture.SyncookiesSent, "TCPAbortOnData": capture.TCPAbortOnData,
		"TCPAbortOnClose": capture.TCPAbortOnClose, "TCPAbortOnTimeout": capture.TCPAbortOnTimeout,
		"TCPAbortOnMemory": capture.TCPAbortOnMemory, "TCPOFOQueue": capture.TCPOFOQueue,
		"TCPRcvQDrop": capture.TCPRcvQDrop, "TCPBacklogDrop": capture.TCPBacklogDrop,
		"TCPZeroWindowDrop": capture.TCPZeroWindowDrop, "TCPToZeroWindowAdv": capture.TCPToZeroWindowAdv,
		"TCPMemoryPressures": capture.TCPMemoryPressures},
}

var (
	errEmpty   = errors.New("the file is empty")
	errNumber  = errors.New("a number was expected")
	errColumns = errors.New("the file has fewer columns than expected")
)

// parseSNMP reads /proc/net/snmp or netstat.
func parseSNMP(b []byte, h *capture.HostSample) error {
	if len(b) == 0 {
		return errEmpty
	}
	for len(b) > 0 {
		var names, values []byte
		names, b = line(b)
		values, b = line(b)
		prefix, names := field(names)
		again, values := field(values)
		if len(prefix) == 0 || !bytes.Equal(prefix, again) {
			return fmt.Errorf("no line of values follows the names of %.20q", prefix)
		}
		table := snmpTables[string(prefix)]
		if table == nil {
			continue
		}
		for {
			var name, value []byte
			name, names = field(names)
			value, values = field(values)
			if (len(name) == 0) != (len(value) == 0) {
				return fmt.Errorf("%s has not as many values as names", prefix)
			}
			if len(name) == 0 {
				break
			}
			c, wanted := table[string(name)]
			if !wanted {
				continue
			}
			n, ok := decimal(value)
			if !ok {
				return fmt.Errorf("%s %s: %w", prefix, name, errNumber)
			}
			h.Set(c, n)
		}
	}
	return nil
}

// parseSockstat reads /proc/net/sockstat.
func parseSockstat(b []byte, h *capture.HostSample) error {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		prefix, l := field(l)
		if string(prefix) != "TCP:" {
			continue
		}
		for {
			var name, value []byte
			name, l = field(l)
			value, l = field(l)
			if len(name) == 0 {
				return nil
			}
			n, ok := decimal(value)
			if !ok {
				return fmt.Errorf("TCP: %.20q: %w", name, errNumber)
			}
			switch string(name) {
			case "orphan":
				h.SocketsOrphan = n
			case "tw":
				h.SocketsTimeWait = n
			case "mem":
				h.TCPMemPages = n
			}
		}
	}
	return errors.New("no line for TCP")
}

// counter32 makes one 64-bit counter of the sum over the CPUs of counters that the kernel prints with 32 bits: the sum
// modulo 2³² grows by what the true sum grows.
type counter32 struct {
	sum   uint32
	total uint64
	begun bool
}

func (c *counter32) add(sum uint64) uint64 {
	grown := uint32(sum) - c.sum
	c.sum = uint32(sum)
	if !c.begun || grown > 1<<31 { // a sum that shrank: a CPU went offline, or the namespace is another one
		c.begun, c.total = true, sum
	} else {
		c.total += uint64(grown)
	}
	return c.total
}

// perCPU is a file of 32-bit hexadecimal counters with one line per CPU.
type perCPU struct {
	names    []string // nil: the file has no line of names, and the columns are the first
	counters []capture.Counter
	wide     []counter32
}

// softnet is /proc/net/softnet_stat (softnet_seq_show in net/core/net-procfs.c).
func softnet() *perCPU {
	return &perCPU{counters: []capture.Counter{capture.SoftnetProcessed, capture.SoftnetDropped, capture.SoftnetSqueezed},
		wide: make([]counter32, 3)}
}

// conntrack is /proc/net/stat/nf_conntrack (ct_cpu_seq_show in nf_conntrack_standalone.c).
func conntrack() *perCPU {
	return &perCPU{names: []string{"insert_failed", "drop", "early_drop"},
		counters: []capture.Counter{capture.ConntrackInsertFailed, capture.ConntrackDrop, capture.ConntrackEarlyDrop},
		wide:     make([]counter32, 3)}
}

// maxColumns is more than either file has (17 in Linux 6.18).
const maxColumns = 64

func (p *perCPU) parse(b []byte, h *capture.HostSample) error {
	if len(b) == 0 {
		return errEmpty
	}
	column := [3]int{0, 1, 2}
	if p.names != nil {
		var head []byte
		head, b = line(b)
		column = [3]int{-1, -1, -1}
		for i := range maxColumns {
			var name []byte
			if name, head = field(head); len(name) == 0 {
				break
			}
			for k := range p.names {
				if string(name) == p.names[k] {
					column[k] = i
				}
			}
		}
	}
	var sum [3]uint64
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		var row [maxColumns]uint64
		n := 0
		for ; n < maxColumns; n++ {
			var f []byte
			if f, l = field(l); len(f) == 0 {
				break
			}
			v, ok := hexadecimal(f)
			if !ok || v > 1<<32-1 {
				return errNumber
			}
			row[n] = v
		}
		for k, i := range column {
			if i >= n {
				return errColumns
			}
			if i >= 0 {
				sum[k] += row[i]
			}
		}
	}
	for k, c := range p.counters {
		if column[k] >= 0 {
			h.Set(c, p.wide[k].add(sum[k]))
		}
	}
	return nil
}

// numbers reads a file of n decimal numbers in one line.
func numbers(b []byte, n int) (v [3]uint64, err error) {
	for i := range n {
		var f []byte
		f, b = field(b)
		var ok bool
		if v[i], ok = decimal(f); !ok {
			return v, errNumber
		}
	}
	return v, nil
}

func parseConntrackCount(b []byte, h *capture.HostSample) error {
	v, err := numbers(b, 1)
	h.ConntrackCount = v[0]
	return err
}

func parseConntrackMax(b []byte, h *capture.HostSample) error {
	v, err := numbers(b, 1)
	h.ConntrackMax = v[0]
	return err
}

// parseFileNr reads /proc/sys/fs/file-nr: allocated, unused (0 since Linux 2.6), maximum.
func parseFileNr(b []byte, h *capture.HostSample) error {
	v, err := numbers(b, 3)
	h.FilesOpen, h.FilesMax = v[0], v[2]
	return err
}

func parsePortRange(b []byte, h *capture.HostSample) error {
	v, err := numbers(b, 2)
	if err == nil && (v[0] > v[1] || v[1] > 1<<16-1) {
		err = fmt.Errorf("%d to %d is no range of ports", v[0], v[1])
	}
	h.PortRange = [2]uint16{uint16(v[0]), uint16(v[1])}
	return err
}

func parseTCPMem(b []byte, h *capture.HostSample) (err error) {
	h.TCPMemLimit, err = numbers(b, 3)
	return err
}

// line cuts the first line off b.
func line(b []byte) (first, rest []byte) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// field cuts the first word off a line; it is empty at the end.
func field(b []byte) (first, rest []byte) {
	i := 0
	for i < len(b) && blank(b[i]) {
		i++
	}
	j := i
	for j < len(b) && !blank(b[j]) {
		j++
	}
	return b[i:j], b[j:]
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' }

// decimal converts an unsigned number that fits 64 bits.
func decimal(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	for _, c := range b {
		d := uint64(c - '0')
		if c < '0' || c > '9' || n > (1<<64-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// hexadecimal converts an unsigned number of at most 16 digits, without 0x.
func hexadecimal(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 16 {
		return 0, false
	}
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | uint64(c-'a'+10)
		case c >= 'A' && c <= 'F':
			n = n<<4 | uint64(c-'A'+10)
		default:
			return 0, false
		}
	}
	return n, true
}
