package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/pcapfile"
	"jindan/rules"
)

// What is read is what was written: every field, the order, the sources, and where Until says something new.
func TestRandom(t *testing.T) {
	var all WriteStats
	for seed := range uint64(20) {
		m := newMaker(seed)
		var batches []*capture.Batch
		want := &stream{}
		for range 20 {
			b := m.batch(m.IntN(100))
			batches = append(batches, b)
			want.add(b)
		}
		dir, st := record(t, Options{}, batches...)
		for _, n := range []int{1, 7, 512} {
			compare(t, replay(t, dir, n), want)
		}
		if st.LeftOut != 0 || st.Stopped != "" {
			t.Fatalf("%+v", st)
		}
		all.Packets += st.Packets
		all.Odd += st.Odd
	}
	// Odd are those made so and those whose extension headers were made too long, no more.
	if all.Odd*10 > all.Packets || all.Odd == 0 {
		t.Errorf("%d of %d packets are in no capture file", all.Odd, all.Packets)
	}
}

// Where the decoder's packets go to the capture file, tests of each kind of header that says so.
func TestOnlyNonsenseIsOdd(t *testing.T) {
	m := newMaker(99)
	for range 200_000 {
		p := m.packet()
		if _, ok := plan(&p); !ok {
			t.Fatalf("no layout for %+v", p)
		}
	}
}

func fixtures(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../fixtures/*/packets.pcap*")
	if err != nil || len(files) < 10 {
		t.Fatalf("fixtures: %v, %v", files, err)
	}
	return files
}

// recordFile records a capture as the agent would.
func recordFile(t *testing.T, file string) (dir string, want *stream, st WriteStats) {
	t.Helper()
	src, err := openPackets(file)
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "recording")
	w, err := Create(dir, Options{Meta: Meta{Agent: "jindan test"}})
	if err != nil {
		t.Fatal(err)
	}
	want = &stream{}
	err = capture.Merge(t.Context(), []capture.Source{src}, 0, func(b *capture.Batch) error {
		want.add(b)
		return w.Write(b)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, want, w.Stats()
}

// Captures of the lab: the same packets, and the same findings byte for byte.
func TestFixtures(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range fixtures(t) {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			t.Parallel()
			dir, want, st := recordFile(t, file)
			if st.Odd > 0 {
				t.Errorf("%d packets of %d cannot be expressed", st.Odd, st.Packets)
			}
			compare(t, replay(t, dir, 512), want)
			dir = filepath.Join(t.TempDir(), "live")
			w, err := Create(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			a := findings(t, set, file, openPackets, w)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			b := findings(t, set, dir, func(name string) (capture.Source, error) { return Open(name, openPackets) }, nil)
			if !bytes.Equal(a, b) {
				t.Errorf("findings differ:\n%s\nwant\n%s", b, a)
			}
			// The capture file alone serves, too.
			alone, err := openPackets(filepath.Join(dir, PacketsFile))
			if err != nil {
				t.Fatal(err)
			}
			if s, err := drain(t, alone, 512); err != io.EOF || uint64(len(s.obs)) < st.Packets {
				t.Errorf("%d observations of %d, %v", len(s.obs), st.Packets, err)
			}
		})
	}
}

// findings diagnoses a source. If w is given, this is the agent: batches end anywhere, time passes between them as a merge with
// quieter sources says, and all of it is recorded.
func findings(t *testing.T, set *rules.Set, name string, open func(string) (capture.Source, error), w *Writer) []byte {
	t.Helper()
	src, err := open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	e, err := analyze.New(set, detect.All(), analyze.Options{Causes: cause.New(set)}, func(f *analyze.Finding) error { return enc.Encode(f) })
	if err != nil {
		t.Fatal(err)
	}
	m := newMaker(77)
	err = capture.Merge(t.Context(), []capture.Source{src}, 0, func(b *capture.Batch) error {
		if w == nil {
			return e.Observe(b)
		}
		for len(b.Obs) > 0 {
			n := 1 + m.IntN(len(b.Obs))
			part := capture.Batch{Obs: b.Obs[:n], Until: b.Obs[n-1].At}
			b.Obs = b.Obs[n:]
			if len(b.Obs) > 0 {
				part.Until = b.Obs[0].At
			}
			if m.chance(10) { // more than is true: what follows comes late
				part.Until += 1_500_000_000
			}
			if err := errors.Join(e.Observe(&part), w.Write(&part)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d, err := e.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := enc.Encode(d); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Other programs read packets.pcapng without complaint.
func TestWireshark(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skip("tshark is not installed: nothing to compare with")
	}
	m := newMaker(5)
	random := []*capture.Batch{}
	for range 20 {
		b := m.batch(100)
		for i := range b.Obs {
			// Wireshark calls malformed: random bytes for DNS, ICMP errors without a quotation, and what exceeds 65,535 bytes
			// where neither a jumbo option nor TSO (its preference for IPv4 and IPv6) says so.
			p := &b.Obs[i].Packet
			tcp, udp := p.Proto == capture.ProtoTCP, p.Proto == capture.ProtoUDP
			for len(p.Data) > 0 || !tcp && (!udp && p.ICMPType != 8 && p.ICMPType < 128 || p.IPLen > 65535) {
				*p = m.packet()
				tcp, udp = p.Proto == capture.ProtoTCP, p.Proto == capture.ProtoUDP
			}
		}
		random = append(random, b)
	}
	randomDir, st := record(t, Options{}, random...)
	check := func(dir string, packets uint64) {
		t.Helper()
		file := filepath.Join(dir, PacketsFile)
		out, err := exec.Command("tshark", "-n", "-r", file, "-T", "fields", "-e", "frame.number", "-e", "frame.time_epoch").Output()
		if lines := bytes.Count(out, []byte("\n")); err != nil || uint64(lines) != packets {
			t.Errorf("tshark: %d packets, want %d: %v\n%.500s", lines, packets, err, out)
		}
		malformed, err := exec.Command("tshark", "-n", "-r", file, "-Y",
			"_ws.malformed || ip.checksum.status == 0 || tcp.option.len.invalid || eth.src.ig == 1 || icmp.checksum.status == 0 || icmpv6.checksum.status == 0",
			"-o", "ip.check_checksum:TRUE", "-o", "ipv6.tso_support:TRUE").Output()
		if err != nil || len(malformed) > 0 {
			t.Errorf("tshark objects: %v\n%.2000s", err, malformed)
		}
	}
	check(randomDir, st.Packets)
	for _, file := range fixtures(t)[:2] {
		dir, _, st := recordFile(t, file)
		check(dir, st.Packets)
	}
}

func TestDirectory(t *testing.T) {
	dir, _ := record(t, Options{})
	if !IsRecording(dir) || IsRecording(filepath.Dir(dir)) {
		t.Error("not recognised, or too much")
	}
	if _, err := Create(dir, Options{}); !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "another directory") {
		t.Errorf("second recording: %v", err)
	}
	os.Remove(filepath.Join(dir, SamplesFile))
	if _, err := Create(dir, Options{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("beside packets: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, SamplesFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no permission bits")
	}
	dir, _ = record(t, Options{})
	for file, want := range map[string]os.FileMode{"": 0o700, PacketsFile: 0o600, SamplesFile: 0o600} {
		if st, err := os.Stat(filepath.Join(dir, file)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%q: %v, %v", file, st.Mode(), err)
		}
	}
}

func TestMeta(t *testing.T) {
	dir, _ := record(t, Options{Meta: Meta{Host: "verify-1", Agent: "jindan 1", Local: "10.77.2.2", Sources: []string{"eth0", "sockets"}}})
	r, err := Open(dir, openPackets)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if m := r.Meta(); m.Host != "verify-1" || m.Agent != "jindan 1" || m.Local != "10.77.2.2" || len(m.Sources) != 2 {
		t.Errorf("%+v", m)
	}
	// A recording of a version whose counters stand elsewhere.
	o := capture.Observation{At: 1, Kind: capture.KindSample, Sample: &capture.Sample{Host: &capture.HostSample{}}}
	o.Sample.Host.Set(0, 5)
	o.Sample.Host.Set(1, 6)
	dir, _ = record(t, Options{}, &capture.Batch{Obs: []capture.Observation{o}})
	b := contents(t, dir, SamplesFile)
	b = bytes.Replace(b, []byte(`"ActiveOpens","PassiveOpens"`), []byte(`"Unheard","ActiveOpens"`), 1)
	write(t, filepath.Join(dir, SamplesFile), b)
	h := replay(t, dir, 5).obs[0].Sample.Host
	if h.Counters[capture.ActiveOpens] != 6 || h.Has != 1 {
		t.Errorf("%v", h)
	}
}

// Losses are where they were, and other readers of the capture file see those of the kernel.
func TestLosses(t *testing.T) {
	m := newMaker(1)
	p := m.packet()
	p.Frame = 0
	drop := capture.Observation{At: m.at, Kind: capture.KindLoss, Reason: capture.LossKernelDrop, Lost: 7}
	packet := capture.Observation{At: m.at, Packet: p}
	b := &capture.Batch{Obs: []capture.Observation{drop, packet, packet, drop, drop, packet, drop}}
	want := &stream{}
	want.add(b)
	dir, _ := record(t, Options{}, b)
	compare(t, replay(t, dir, 3), want)
	f, err := pcapfile.Open(filepath.Join(dir, PacketsFile), decode.New())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := drain(t, f, 10); err != io.EOF || f.Stats().Unread[capture.LossKernelDrop] != 28 {
		t.Errorf("%v, %+v", err, f.Stats())
	}
}

// The limits hold, what they leave out is counted, and the rest can be read.
func TestLimits(t *testing.T) {
	for _, o := range []Options{{MaxBytes: 20_000}, {MaxDuration: 300_000_000}} {
		m := newMaker(3)
		var batches []*capture.Batch
		all := &stream{}
		for range 20 {
			b := m.batch(100)
			batches = append(batches, b)
			all.add(b)
		}
		dir, st := record(t, o, batches...)
		got := replay(t, dir, 100)
		if st.Stopped == "" || st.LeftOut == 0 || len(got.obs)+int(st.LeftOut) != len(all.obs) {
			t.Errorf("%+v: %+v, %d of %d read", o, st, len(got.obs), len(all.obs))
		}
		all.obs = all.obs[:len(got.obs)]
		all.untils = got.untils
		compare(t, got, all)
		if o.MaxBytes > 0 {
			if n := int64(len(contents(t, dir, PacketsFile)) + len(contents(t, dir, SamplesFile))); n > o.MaxBytes || n != st.Bytes {
				t.Errorf("%d bytes, said %d, limit %d", n, st.Bytes, o.MaxBytes)
			}
		} else if d := got.high.Sub(got.obs[0].At); d > o.MaxDuration*2 {
			t.Errorf("%v", d)
		}
	}
}

// A host under load has thousands of sockets in TIME_WAIT in each dump: what is zero of them is not written.
func TestTimeWaitIsShort(t *testing.T) {
	const n = 1000
	table := &capture.SocketTable{States: capture.AllStates, Info: true}
	for i := range n {
		s := capture.Socket{Cookie: uint64(i), State: capture.TimeWait, Timer: 3, TimerLeft: 59_000}
		s.Local.Port, s.Remote.Port = 8080, uint16(i)
		table.Sockets = append(table.Sockets, s)
	}
	dir, _ := record(t, Options{}, &capture.Batch{Obs: []capture.Observation{{At: 1_700_000_000_000_000_000, Kind: capture.KindSample, Sample: &capture.Sample{Sockets: table}}}})
	if size := len(contents(t, dir, SamplesFile)); size > n*220 {
		t.Errorf("%d bytes for each socket", size/n)
	}
}
