package decode_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/pcapfile"
)

// corpusEnv names a directory with index.tsv (first column: path), captures/<path> and
// truth/<path, with "/" as "__">.json, which holds what Wireshark says of the capture.
const corpusEnv = "JINDAN_CORPUS"

func corpusFiles(t testing.TB) (dir string, paths []string) {
	dir = os.Getenv(corpusEnv)
	if dir == "" {
		t.Skipf("%s is not set: no corpus to compare with", corpusEnv)
	}
	f, err := os.Open(filepath.Join(dir, "index.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if path, _, _ := strings.Cut(s.Text(), "\t"); path != "path" {
			paths = append(paths, path)
		}
	}
	return dir, paths
}

// traffic is what one side of a connection sent.
type traffic struct{ packets, bytes int }

type truth struct {
	Summary struct {
		TCPPackets int `json:"tcp_packets"`
	}
	TCP []struct {
		Client, Server string
		CPort, SPort   uint16
		PkC            int `json:"pk_c"`
		PkS            int `json:"pk_s"`
		BytesC         int `json:"bytes_c"`
		BytesS         int `json:"bytes_s"`
	}
}

func readTruth(t *testing.T, dir, path string) (int, map[string]traffic) {
	b, err := os.ReadFile(filepath.Join(dir, "truth", strings.ReplaceAll(path, "/", "__")+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var tr truth
	if err := json.Unmarshal(b, &tr); err != nil {
		t.Fatal(path, err)
	}
	m := map[string]traffic{}
	add := func(a string, ap uint16, b string, bp uint16, packets, bytes int) {
		if packets > 0 {
			k := a + " " + portString(ap) + " > " + b + " " + portString(bp)
			m[k] = traffic{m[k].packets + packets, m[k].bytes + bytes}
		}
	}
	for _, s := range tr.TCP {
		add(s.Client, s.CPort, s.Server, s.SPort, s.PkC, s.BytesC)
		add(s.Server, s.SPort, s.Client, s.CPort, s.PkS, s.BytesS)
	}
	return tr.Summary.TCPPackets, m
}

func portString(p uint16) string {
	b, _ := json.Marshal(p)
	return string(b)
}

// readFile decodes a capture and returns its TCP traffic by direction.
func readFile(t *testing.T, name string, d pcapfile.Decoder, packet func(*capture.Observation)) {
	f, err := pcapfile.Open(name, d)
	if err != nil {
		t.Log(err)
		return
	}
	defer f.Close()
	var b capture.Batch
	for {
		err := f.Read(t.Context(), &b)
		for i := range b.Obs {
			packet(&b.Obs[i])
		}
		if err != nil {
			var damage *pcapfile.DamageError
			if !errors.Is(err, io.EOF) && !errors.As(err, &damage) {
				t.Errorf("%s: %v", name, err)
			}
			return
		}
	}
}

// differs lists the captures where Wireshark 4.0.17 sees other TCP packets, by the last
// parts of their path, and why.
var differs = map[string]string{
	"ajp.pcap":                                "takes the last 4 bytes of FabricPath frames for a check sequence, and so misses the end of the packets",
	"bigtcp-ipv4-geneve-ipv6.pcap":            "does not know BIG TCP",
	"bigtcp-ipv4-vxlan-ipv4.pcap":             "does not know BIG TCP",
	"bigtcp-ipv4-vxlan-ipv6.pcap":             "does not know BIG TCP",
	"bigtcp-ipv6-geneve-ipv4.pcap":            "does not know BIG TCP",
	"bigtcp-ipv6-geneve-ipv6.pcap":            "does not know BIG TCP",
	"bgp-bgp_capabilities_print-oobr-2.pcap":  "does not reassemble fragments cut by the snap length, and reports a first fragment without the others",
	"bgp_pmsi_tunnel-oobr.pcap":               "the same",
	"gtp9_unknown_or_too_short_payload.pcap":  "accepts an inner packet longer than the outer one",
	"filestore-5408/input.pcap":               "takes a header quoted in an sFlow report for a packet",
	"default/pcap/ip_fragmented_garbage.pcap": "accepts TCP headers of 8 and 16 bytes (RFC 9293 §3.1: 20 or more)",
	"default/pcap/kerberos_fuzz.pcapng":       "accepts a TCP header of 8 bytes",
}

func explained(path string) bool {
	for suffix := range differs {
		if strings.HasSuffix(path, suffix) {
			return true
		}
	}
	return false
}

// TestCorpusTruth compares, for every capture, the number of TCP packets, and packets
// and payload bytes by connection and direction, with Wireshark's.
func TestCorpusTruth(t *testing.T) {
	dir, paths := corpusFiles(t)
	equal := 0
	for _, path := range paths {
		want, wantFlows := readTruth(t, dir, path)
		got, flows := 0, map[string]traffic{}
		losses := map[string]uint64{}
		d := decode.New()
		readFile(t, filepath.Join(dir, "captures", path), d, func(o *capture.Observation) {
			if o.Kind == capture.KindLoss {
				losses[o.Reason.String()] += o.Lost
				return
			}
			p := &o.Packet
			if p.Proto != capture.ProtoTCP {
				return
			}
			got++
			k := p.Src.Addr.String() + " " + portString(p.Src.Port) + " > " + p.Dst.Addr.String() + " " + portString(p.Dst.Port)
			flows[k] = traffic{flows[k].packets + 1, flows[k].bytes + int(p.Len)}
		})
		var diffs []string
		if got != want {
			diffs = append(diffs, fmt.Sprintf("%d TCP packets, Wireshark has %d; losses %v", got, want, losses))
		}
		for k, v := range wantFlows {
			if flows[k] != v {
				diffs = append(diffs, fmt.Sprintf("%s: %+v, Wireshark has %+v", k, flows[k], v))
			}
		}
		for k, v := range flows {
			if _, ok := wantFlows[k]; !ok {
				diffs = append(diffs, fmt.Sprintf("%s: %+v, Wireshark has none", k, v))
			}
		}
		switch {
		case len(diffs) == 0:
			equal++
		case explained(path):
			t.Logf("%s: explained: %s", path, diffs[0])
		default:
			t.Errorf("%s: %d differences:\n%s", path, len(diffs), strings.Join(diffs[:min(3, len(diffs))], "\n"))
		}
	}
	t.Logf("%d of %d captures equal, %d explained", equal, len(paths), len(differs))
}
