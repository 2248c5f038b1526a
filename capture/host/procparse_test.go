//go:build linux

package host

import (
	"strings"
	"testing"
	"time"
)

// The paths are those that the runtimes make: systemd and cgroupfs drivers, cgroup v1 and v2.
func TestParseCgroup(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for _, c := range []struct{ text, unit, container string }{
		{"0::/system.slice/nginx.service\n", "nginx.service", ""},
		{"12:pids:/system.slice/sshd.service\n1:name=systemd:/system.slice/sshd.service\n0::/\n", "sshd.service", ""},
		{"0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service\n", "web.service", ""},
		{"0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope", ""},
		{"0::/system.slice/docker-" + id + ".scope\n", "", id},
		{"4:memory:/docker/" + id + "\n1:name=systemd:/docker/" + id + "\n", "", id},
		{"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-" + id + ".scope\n", "", id},
		{"0::/kubepods/besteffort/pod6b5c/" + id + "\n", "", id},
		{"1:name=systemd:/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:" + id + "\n", "", id},
		{"0::/kubepods.slice/kubepods-pod1.slice/crio-" + id + ".scope\n", "", id},
		{"0::/machine.slice/libpod-" + id + ".scope/container\n", "", id},
		{"0::/machine.slice/libpod-" + id + ".scope/container/system.slice/httpd.service\n", "httpd.service", id},
		{"0::/machine.slice/libpod-conmon-" + id + ".scope\n", "libpod-conmon-" + id + ".scope", ""},
		{"0::/\n", "", ""},
		{"garbage", "", ""},
	} {
		if unit, container := parseCgroup([]byte(c.text)); unit != c.unit || container != c.container {
			t.Errorf("%q: unit %q, container %q", c.text, unit, container)
		}
	}
}

func TestParseStat(t *testing.T) {
	s, ok := parseStat([]byte("812 (a ) b) S 1 1 1 0 -1 4194304 1 0 0 0 1 1 0 0 20 0 16 0 123456 1 1"))
	if !ok || s != (stat{"a ) b", "S", 1234560 * time.Millisecond}) {
		t.Errorf("%+v %v", s, ok)
	}
	if _, ok := parseStat([]byte("812 (cut) S 1 1")); ok {
		t.Error("a line cut short is understood")
	}
}

func TestParseSocketLine(t *testing.T) {
	s, ok := parseSocketLine([]byte("  12: 0000000000000000FFFF0000020A4D0A:1F90 B80D0120000000000000000001000000:D431 08 00000001:00000000 00:00000000 00000000  1000        0 4711 1 0 20 4 30 10 -1"))
	if !ok || s.local.String() != "10.77.10.2:8080" || s.remote.String() != "[2001:db8::1]:54321" || s.state != 8 || s.inode != 4711 {
		t.Errorf("%v %v %+v", s.local, s.remote, s)
	}
	s, ok = parseSocketLine([]byte("   0: 0100007F:0035 02034D0A:0050 0A 00000000:00000000 00:00000000 00000000     0        0 99 1 0 100 0 0 10 0"))
	if !ok || s.local.String() != "127.0.0.1:53" || s.remote.String() != "10.77.3.2:80" {
		t.Errorf("%v %v %v", s.local, s.remote, ok)
	}
}
