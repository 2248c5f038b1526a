//go:build linux

package sockets

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"jindan/capture"

	"golang.org/x/sys/unix"
)

// find returns the socket of a descriptor.
func find(t *testing.T, table *capture.SocketTable, fd int) *capture.Socket {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	for i := range table.Sockets {
		if uint64(table.Sockets[i].Inode) == st.Ino {
			return &table.Sockets[i]
		}
	}
	t.Fatalf("descriptor %d is not in the dump of %d sockets", fd, len(table.Sockets))
	return nil
}

// tcp_info of a dump is what getsockopt(2) returns to the socket's owner, field by field.
func TestInfoAgainstGetsockopt(t *testing.T) {
	l, at := listen(t, "127.0.0.1:0", 8)
	client, server := pair(t, l, at)
	for range 3 {
		if _, err := unix.Write(client, make([]byte, 5000)); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, "")
	var table capture.SocketTable
	names := map[string]string{"Reord": "Reord_seen", "OutOfOrder": "Rcv_ooopack", "CAState": "Ca_state", "SndSsthresh": "Snd_ssthresh"}
	for _, fd := range []int{client, server} {
		must(t, d.Dump(&table, capture.Established.Mask(), true))
		theirs, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		must(t, err)
		byName := map[string]reflect.Value{}
		for v, i := reflect.ValueOf(*theirs), 0; i < v.NumField(); i++ {
			byName[strings.ToLower(strings.ReplaceAll(v.Type().Field(i).Name, "_", ""))] = v.Field(i)
		}
		ours := reflect.ValueOf(find(t, &table, fd).Info)
		for i := range ours.NumField() {
			name := ours.Type().Field(i).Name
			switch name {
			case "SndWscale", "RcvWscale": // bit fields, which x/sys leaves out; compared with ss
				continue
			case "LastDataSent", "LastDataRecv", "LastAckRecv": // a tick may pass
				continue
			}
			other := name
			if n, ok := names[name]; ok {
				other = n
			}
			v, ok := byName[strings.ToLower(strings.ReplaceAll(other, "_", ""))]
			if !ok {
				t.Errorf("getsockopt has no %s", name)
			} else if fmt.Sprint(v.Interface()) != fmt.Sprint(ours.Field(i).Interface()) {
				t.Errorf("%s: %v, getsockopt has %v", name, ours.Field(i).Interface(), v.Interface())
			}
		}
	}
}

// The kernel selects the states, and the identity of a socket outlives a change of state.
func TestStatesAndCookie(t *testing.T) {
	l, at := listen(t, "127.0.0.1:0", 8)
	client, server := pair(t, l, at)
	d := open(t, "")
	var table capture.SocketTable
	must(t, d.Dump(&table, capture.Established.Mask(), false))
	before := *find(t, &table, server)
	if before.HasInfo || table.Info || table.States != capture.Established.Mask() {
		t.Errorf("tcp_info although none was asked: %+v", table)
	}
	must(t, unix.Shutdown(client, unix.SHUT_WR))
	must(t, d.Dump(&table, GateStates, false))
	for _, s := range table.Sockets {
		if s.State.Mask()&GateStates == 0 && s.State != capture.SynRecv {
			t.Errorf("%v was not asked for", s.State)
		}
	}
	if after := find(t, &table, server); after.State != capture.CloseWait || after.Cookie != before.Cookie || after.Local != before.Local {
		t.Errorf("%+v was %+v", after, before)
	}
	if s := find(t, &table, l); s.State != capture.Listen || s.SendQ != 8 || s.UID != uint32(os.Getuid()) {
		t.Errorf("listener: %+v", s)
	}
	cookie, err := unix.GetsockoptUint64(server, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil || cookie != before.Cookie {
		t.Errorf("cookie %x, SO_COOKIE %x, %v", before.Cookie, cookie, err)
	}
}

// A dump that was left in the middle does not disturb the next one.
func TestAfterAbandonedDump(t *testing.T) {
	l, at := listen(t, "127.0.0.1:0", 512)
	for range 300 { // several datagrams
		connect(t, at)
	}
	d := open(t, "")
	var table capture.SocketTable
	must(t, d.Dump(&table, capture.AllStates, true))
	if _, err := unix.Write(d.socket.GetFd(), d.request); err != nil {
		t.Fatal(err)
	}
	d.running = true
	must(t, d.Dump(&table, capture.AllStates, true))
	find(t, &table, l)
	n := 0
	for _, s := range table.Sockets {
		if s.Local.Port == at.Port() && s.State == capture.Established {
			n++
		}
	}
	if n != 300 {
		t.Errorf("%d connections at the listener, want 300", n)
	}
}

// Sockets beyond the cap are counted, and the table says that it is not whole.
func TestCap(t *testing.T) {
	l, at := listen(t, "127.0.0.1:0", 8)
	pair(t, l, at)
	d := open(t, "")
	d.max = 1
	var table capture.SocketTable
	must(t, d.Dump(&table, capture.AllStates, false))
	over, malformed := d.Lost()
	if len(table.Sockets) != 1 || over < 2 || malformed != 0 || !table.Interrupted {
		t.Errorf("%d sockets, %d over the cap, %d malformed, interrupted %v", len(table.Sockets), over, malformed, table.Interrupted)
	}
	d.max = MaxSockets
	must(t, d.Dump(&table, capture.AllStates, false))
	if table.Interrupted || len(table.Sockets) < 3 {
		t.Errorf("the next dump: %d sockets, interrupted %v", len(table.Sockets), table.Interrupted)
	}
}

// Sockets that are bound and do not listen are listed where the kernel can, as CLOSE.
func TestBoundInactive(t *testing.T) {
	a := netip.MustParseAddrPort("127.0.0.1:0")
	fd := socket(t, a)
	must(t, unix.Bind(fd, sockaddr(a)))
	d := open(t, "")
	var table capture.SocketTable
	must(t, d.Dump(&table, capture.BoundInactive.Mask(), false))
	if len(table.Sockets) == 0 {
		t.Skip("the kernel does not list bound sockets (Linux 6.8)")
	}
	if s := find(t, &table, fd); s.State != capture.Close || s.Local.Port == 0 {
		t.Errorf("bound socket: %v at %v", s.State, s.Local)
	}
}

// In the steady state a dump allocates nothing.
func TestDumpAllocations(t *testing.T) {
	_, at := listen(t, "127.0.0.1:0", 512)
	for range 300 {
		connect(t, at)
	}
	d := open(t, "")
	var table capture.SocketTable
	must(t, d.Dump(&table, capture.AllStates, true))
	for _, info := range []bool{false, true} {
		if n := testing.AllocsPerRun(20, func() { must(t, d.Dump(&table, capture.AllStates, info)) }); n > 0 {
			t.Errorf("%v allocations a dump of %d sockets, tcp_info %v", n, len(table.Sockets), info)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open("/nonexistent"); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("no such namespace: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := Open(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("no namespace: %v", err)
	}
	d := open(t, "")
	must(t, d.Close())
	if err := d.Dump(new(capture.SocketTable), capture.AllStates, false); err == nil {
		t.Error("a dump after Close succeeds")
	}
}

// A dumper of another namespace sees that one's sockets, and no thread stays there.
func TestIntegrationOtherNamespace(t *testing.T) {
	ready, leave := make(chan string), make(chan struct{})
	t.Run("", func(t *testing.T) {
		t.Run("inside", func(t *testing.T) {
			t.Parallel()
			defer close(ready)
			ownNamespace(t)
			l, at := listen(t, "127.0.0.1:7100", 8)
			pair(t, l, at)
			ready <- fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
			<-leave
		})
		t.Run("outside", func(t *testing.T) {
			t.Parallel()
			defer close(leave)
			path, ok := <-ready
			if !ok {
				t.Skip("there is no other namespace")
			}
			d := open(t, path)
			var table capture.SocketTable
			must(t, d.Dump(&table, capture.AllStates, true))
			if len(table.Sockets) != 3 {
				t.Errorf("%d sockets, want a listener and both ends of a connection: %+v", len(table.Sockets), table.Sockets)
			}
			want := capture.Endpoint{Addr: capture.AddrFrom(netip.MustParseAddr("127.0.0.1")), Port: 7100}
			if s := table.Sockets[0]; s.Local != want {
				t.Errorf("first is %v, want %v", s.Local, want)
			}
			inside, err := os.Readlink(path)
			must(t, err)
			tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
			must(t, err)
			n := 0
			for _, task := range tasks {
				if ns, _ := os.Readlink(task); ns == inside {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%d threads in the other namespace, want the one that made it", n)
			}
		})
	})
}
