package main

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"jindan/analyze"
	"jindan/analyze/detect"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
	"jindan/rules"
)

// lookups writes a capture in which a name is asked for, answered at first and then not any more.
func lookups(t *testing.T, file string, labels ...string) {
	t.Helper()
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := pcapgo.NewWriter(out)
	err = w.WriteFileHeader(65535, layers.LinkTypeEthernet)
	var name []byte
	for _, l := range labels {
		name = append(append(name, byte(len(l))), l...)
	}
	name = append(name, 0, 0, 1, 0, 1) // A, IN
	packet := func(at time.Duration, id uint16, answer bool) {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, Id: id, SrcIP: net.IP{10, 0, 0, 1}, DstIP: net.IP{10, 0, 0, 53}}
		udp := &layers.UDP{SrcPort: layers.UDPPort(20000 + id), DstPort: 53}
		dns := []byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint16(dns, id)
		dns = append(dns, name...)
		if answer {
			ip.SrcIP, ip.DstIP, udp.SrcPort, udp.DstPort = ip.DstIP, ip.SrcIP, udp.DstPort, udp.SrcPort
			dns[2], dns[3], dns[7] = 0x81, 0x80, 1
			dns = append(dns, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1)
		}
		b := gopacket.NewSerializeBuffer()
		err = errors.Join(err, udp.SetNetworkLayerForChecksum(ip), gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
			&layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv4}, ip, udp, gopacket.Payload(dns)))
		ci := gopacket.CaptureInfo{Timestamp: time.Unix(1_700_000_000, 0).Add(at), Length: len(b.Bytes()), CaptureLength: len(b.Bytes())}
		err = errors.Join(err, w.WritePacket(ci, b.Bytes()))
	}
	for i := range 80 {
		at := time.Duration(i) * 500 * time.Millisecond
		packet(at, uint16(i), false)
		if i < 40 {
			packet(at+time.Millisecond, uint16(i), true)
		}
	}
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
}

// A capture in which strangers chose the names leaves no element and no attribute of its own in the page: it has as many of either as
// that of the same capture with harmless names.
func TestPageOfHostileCapture(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	render := func(labels ...string) string {
		dir := t.TempDir()
		file := filepath.Join(dir, "dns.pcap")
		lookups(t, file, labels...)
		in, err := diagnose.Open([]string{file})
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		page, err := openPage(filepath.Join(dir, "page.html"))
		if err != nil {
			t.Fatal(err)
		}
		d, inErr, err := diagnose.Watched(t.Context(), in, set, nil, page.watch(), func(*analyze.Finding) error { return nil })
		if err := errors.Join(inErr, err, page.write(t.Context(), []string{file}, openerOf([]string{file}), in.Report(nil), d, report.Options{Catalogue: report.Rules(set)}, false)); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(page.name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	count := func(page string) [2]int { return [2]int{strings.Count(page, "<"), strings.Count(page, `="`)} }
	twin := render("name", "example")
	if !strings.Contains(twin, "name.example") {
		t.Fatal("the name is not told at all")
	}
	for _, name := range []string{"</svg><script>alert(1)</script>", `"><img src=x onerror=y>`, "' onload='x", "a\x00b", "\u202egpj.exe", "\xff\xfe",
		strings.Repeat("x", 63), "{{.}}", "]]>", "<!--", "&lt;b&gt;", "</title>", "\u2066\u200b"} {
		page := render(name, "example")
		if got, want := count(page), count(twin); got != want {
			t.Errorf("%q: %d elements and attributes, with a harmless name %d", name, got, want)
		}
		if strings.Contains(page, "<script") || strings.ContainsAny(page, "\x00\u202e\u2066") || !strings.Contains(page, "example") {
			t.Errorf("%q is in the page as it stands, or not at all", name)
		}
	}
}
