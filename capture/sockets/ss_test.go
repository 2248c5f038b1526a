//go:build linux

package sockets

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"jindan/capture"

	"golang.org/x/sys/unix"
)

// TestIntegrationAgainstTools compares a dump with what ss(8) and /proc/net/tcp say about the same sockets.
func TestIntegrationAgainstTools(t *testing.T) {
	ownNamespace(t)
	populate(t)
	d := open(t, "")
	var table capture.SocketTable
	var wrong []string
	for range 20 { // timers run and segments are sent again between the looks
		must(t, d.Dump(&table, capture.AllStates&^capture.BoundInactive.Mask(), true))
		wrong = append(againstSS(t, table.Sockets), againstProc(t, table.Sockets)...)
		if len(wrong) == 0 {
			break
		}
	}
	if len(wrong) > 0 {
		t.Errorf("differs:\n%s", strings.Join(wrong, "\n"))
	}

	// The scenario really has what it is for.
	count := map[string]int{}
	for i := range table.Sockets {
		s := &table.Sockets[i]
		count[s.State.String()]++
		for name, has := range map[string]bool{
			"backlog":                s.State == capture.Listen && s.RecvQ == 2 && s.SendQ == 7,
			"unread":                 s.State == capture.Established && s.RecvQ == 1000 && s.Inode != 0,
			"CLOSE_WAIT accepted":    s.State == capture.CloseWait && s.Inode != 0,
			"CLOSE_WAIT unaccepted":  s.State == capture.CloseWait && s.Inode == 0,
			"retransmitted":          s.State == capture.Established && s.Info.TotalRetrans > 0 && s.SendQ == 3000,
			"IPv6":                   s.State == capture.Established && s.Local.Addr == capture.AddrFrom(netip.IPv6Loopback()),
			"v4-mapped on dual":      s.State == capture.Established && s.Local.Port == 7006 && s.Local.Addr.String() == "127.0.0.1",
			"window scales differ":   s.State == capture.Established && s.Info.SndWscale != s.Info.RcvWscale,
			"drops":                  s.State == capture.Listen && s.Drops > 0,
			"info of an established": s.State == capture.Established && s.HasInfo && s.Info.RTT > 0,
			"bound to an interface":  s.Interface != 0,
			"another user":           s.UID == 65534,
		} {
			if has {
				count[name]++
			} else {
				count[name] += 0
			}
		}
	}
	for _, state := range []string{"ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT2", "TIME_WAIT", "CLOSE_WAIT", "LISTEN"} {
		count[state] += 0
	}
	for name, n := range count {
		if n == 0 {
			t.Errorf("no socket: %s", name)
		}
	}
	t.Logf("%d sockets: %v", len(table.Sockets), count)
}

// populate makes sockets in all kinds of conditions.
func populate(t *testing.T) {
	l, at := listen(t, "127.0.0.1:7001", 7) // two wait to be accepted
	_, server := pair(t, l, at)
	unix.Fchown(server, 65534, 65534)
	connect(t, at)
	connect(t, at)

	l, at = listen(t, "127.0.0.1:7002", 128)
	client, _ := pair(t, l, at) // unread bytes
	write(t, client, 1000)
	client, server = pair(t, l, at) // an exchange
	for range 5 {
		write(t, client, 10_000)
		for got, b := 0, make([]byte, 4096); got < 10_000; {
			n, err := unix.Read(server, b)
			must(t, err)
			got += n
		}
	}
	client, _ = pair(t, l, at) // CLOSE_WAIT against FIN_WAIT2
	must(t, unix.Shutdown(client, unix.SHUT_WR))
	client, server = pair(t, l, at) // TIME_WAIT
	must(t, unix.Shutdown(client, unix.SHUT_RDWR))
	must(t, unix.Shutdown(server, unix.SHUT_RDWR))

	_, at = listen(t, "127.0.0.1:7003", 128) // CLOSE_WAIT, not accepted, against an orphan
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Connect(client, sockaddr(at)))
	write(t, client, 100)
	must(t, unix.Close(client))

	drop(t, "tcp dport 9") // SYN_SENT
	begin(t, netip.MustParseAddrPort("127.0.0.1:9"))

	l, at = listen(t, "[::1]:7005", 128)
	pair(t, l, at)
	l, _ = listen(t, "[::]:7006", 128) // dual
	pair(t, l, netip.MustParseAddrPort("127.0.0.1:7006"))

	a := netip.MustParseAddrPort("127.0.0.1:7007") // another window scale, an interface
	l = socket(t, a)
	must(t, unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	must(t, unix.SetsockoptString(l, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo"))
	must(t, unix.Bind(l, sockaddr(a)))
	must(t, unix.Listen(l, 16))
	small := socket(t, a)
	must(t, unix.SetsockoptInt(small, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096))
	must(t, unix.Connect(small, sockaddr(a)))
	accept(t, l)

	_, at = listen(t, "127.0.0.1:7008", 1) // overflows
	for range 5 {
		begin(t, at)
	}

	drop(t, "tcp sport 7009 tcp flags & (syn|ack) == syn|ack") // SYN_RECV
	_, at = listen(t, "127.0.0.1:7009", 16)
	begin(t, at)

	l, at = listen(t, "127.0.0.1:7010", 16) // lost segments
	client, _ = pair(t, l, at)
	drop(t, "tcp dport 7010")
	write(t, client, 3000)
	time.Sleep(time.Second) // some retransmission timeouts
}

func write(t *testing.T, fd, n int) {
	t.Helper()
	if _, err := unix.Write(fd, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

var ssStates = map[string]capture.SocketState{"ESTAB": capture.Established, "SYN-SENT": capture.SynSent, "SYN-RECV": capture.SynRecv,
	"FIN-WAIT-1": capture.FinWait1, "FIN-WAIT-2": capture.FinWait2, "TIME-WAIT": capture.TimeWait, "UNCONN": capture.Close,
	"CLOSE-WAIT": capture.CloseWait, "LAST-ACK": capture.LastAck, "LISTEN": capture.Listen, "CLOSING": capture.Closing}

// againstSS compares with ss, socket by socket by its cookie.
func againstSS(t *testing.T, ours []capture.Socket) (wrong []string) {
	byCookie := map[uint64]*capture.Socket{}
	for i := range ours {
		byCookie[ours[i].Cookie] = &ours[i]
	}
	lines := strings.Split(strings.TrimSpace(run(t, "ss", "-HOtaniem")), "\n")
	if len(lines) != len(ours) {
		wrong = append(wrong, fmt.Sprintf("%d sockets, ss has %d", len(ours), len(lines)))
	}
	for _, line := range lines {
		f := strings.Fields(line)
		tokens := map[string]string{"uid": "0", "ino": "0"}
		for _, token := range f[5:] {
			if name, value, ok := strings.Cut(token, ":"); ok {
				tokens[name] = value
			}
		}
		cookie, err := strconv.ParseUint(tokens["sk"], 16, 64)
		must(t, err)
		s := byCookie[cookie]
		if s == nil {
			wrong = append(wrong, "not in the dump: "+line)
			continue
		}
		differ := func(name string, ours, theirs any) {
			if fmt.Sprint(ours) != fmt.Sprint(theirs) {
				wrong = append(wrong, fmt.Sprintf("%s %v, ss has %v: %s", name, ours, theirs, line))
			}
		}
		differ("state", s.State, ssStates[f[0]])
		differ("Recv-Q", s.RecvQ, f[1])
		differ("Send-Q", s.SendQ, f[2])
		differ("local", s.Local, ssAddress(t, f[3]))
		differ("remote", s.Remote, ssAddress(t, f[4]))
		differ("inode", s.Inode, tokens["ino"])
		differ("uid", s.UID, tokens["uid"])
		differ("timer", ssTimer(s), strings.Split(tokens["timer"], ",")[0])
		if p := strings.Split(tokens["timer"], ","); len(p) == 3 {
			differ("retries", s.Retries, strings.TrimSuffix(p[2], ")"))
		}
		if _, d, ok := strings.Cut(tokens["skmem"], ",d"); ok {
			differ("drops", s.Drops, strings.TrimSuffix(d, ")"))
		}
		if path, ok := tokens["cgroup"]; ok && strings.HasPrefix(path, "/") {
			if id := cgroupID(path); id != 0 {
				differ("cgroup", s.Cgroup, id)
			}
		}
		if s.State == capture.Listen || !s.HasInfo {
			continue
		}
		i := &s.Info
		ms := func(us uint32) string { return fmt.Sprintf("%.6g", float64(us)/1000) }
		// ss leaves out what is 0, and the round trip before the first, whose variation starts at 250 ms.
		zero := func(v any) bool { return slices.Contains([]string{"0", "0/0", "0,0", "0/250"}, fmt.Sprint(v)) }
		for name, v := range map[string]any{"wscale": fmt.Sprintf("%d,%d", i.SndWscale, i.RcvWscale), "rto": ms(i.RTO), "ato": ms(i.ATO),
			"rtt": ms(i.RTT) + "/" + ms(i.RTTVar), "minrtt": ms(i.MinRTT), "mss": i.SndMSS, "rcvmss": i.RcvMSS, "advmss": i.AdvMSS, "pmtu": i.PMTU,
			"cwnd": i.SndCwnd, "bytes_sent": i.BytesSent, "bytes_retrans": i.BytesRetrans, "bytes_acked": i.BytesAcked,
			"bytes_received": i.BytesReceived, "segs_out": i.SegsOut, "segs_in": i.SegsIn, "data_segs_out": i.DataSegsOut,
			"data_segs_in": i.DataSegsIn, "unacked": i.Unacked, "lost": i.Lost, "retrans": fmt.Sprintf("%d/%d", i.Retrans, i.TotalRetrans),
			"notsent": i.NotsentBytes, "snd_wnd": i.SndWnd, "dsack_dups": i.DSACKDups, "rcv_ooopack": i.OutOfOrder, "reord_seen": i.Reord,
			"backoff": i.Backoff} {
			if theirs, ok := tokens[name]; ok || !zero(v) {
				differ(name, v, theirs)
			}
		}
	}
	return wrong
}

func ssTimer(s *capture.Socket) string {
	return [...]string{"", "(on", "(keepalive", "(timewait", "(persist"}[s.Timer]
}

// ssAddress reads an address as ss writes it: "*" for any, "%lo" behind an address bound to an interface.
func ssAddress(t *testing.T, text string) capture.Endpoint {
	host, port := text[:strings.LastIndex(text, ":")], text[strings.LastIndex(text, ":")+1:]
	host, _, _ = strings.Cut(strings.Trim(host, "[]"), "%")
	if host == "*" {
		host = "::"
	}
	a, err := netip.ParseAddr(host)
	must(t, err)
	n, err := strconv.ParseUint(strings.Replace(port, "*", "0", 1), 10, 16)
	must(t, err)
	return capture.Endpoint{Addr: capture.AddrFrom(a), Port: uint16(n)}
}

// cgroupID is the id of a cgroup v2, the inode of its directory; 0 without the file system.
func cgroupID(path string) uint64 {
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		var st unix.Stat_t
		if unix.Statfs(mount, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC && unix.Stat(mount+path, &st) == nil {
			return st.Ino
		}
	}
	return 0
}

// againstProc compares with /proc/net/tcp and tcp6.
func againstProc(t *testing.T, ours []capture.Socket) (wrong []string) {
	text := func(local, remote capture.Endpoint, state, txq, rxq, uid, inode uint64) string {
		return fmt.Sprintf("%v %v state %d tx %d rx %d uid %d inode %d", local, remote, state, txq, rxq, uid, inode)
	}
	var dump, proc []string
	for _, s := range ours {
		if s.State == capture.Listen {
			s.SendQ = 0 // the backlog is not in /proc/net/tcp
		}
		dump = append(dump, text(s.Local, s.Remote, uint64(s.State), uint64(s.SendQ), uint64(s.RecvQ), uint64(s.UID), uint64(s.Inode)))
	}
	number := func(s string, base int) uint64 {
		n, err := strconv.ParseUint(s, base, 64)
		must(t, err)
		return n
	}
	for _, name := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + name)
		must(t, err)
		for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n")[1:] {
			f := strings.Fields(line)
			txq, rxq, _ := strings.Cut(f[4], ":")
			proc = append(proc, text(procAddress(t, f[1]), procAddress(t, f[2]), number(f[3], 16), number(txq, 16), number(rxq, 16),
				number(f[7], 10), number(f[9], 10)))
		}
	}
	slices.Sort(dump)
	slices.Sort(proc)
	for _, s := range dump {
		if !slices.Contains(proc, s) {
			wrong = append(wrong, "not in /proc/net/tcp: "+s)
		}
	}
	for _, s := range proc {
		if !slices.Contains(dump, s) {
			wrong = append(wrong, "only in /proc/net/tcp: "+s)
		}
	}
	return wrong
}

// procAddress reads an address of 32-bit words in the machine's order.
func procAddress(t *testing.T, text string) capture.Endpoint {
	host, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(host)
	must(t, err)
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4]) // amd64, arm64
	}
	a, _ := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	must(t, err)
	return capture.Endpoint{Addr: capture.AddrFrom(a), Port: uint16(n)}
}
