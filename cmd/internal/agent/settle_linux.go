package agent

import (
	"bufio"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// gcPercent keeps little garbage: the agent lives on a few MB and allocates little, so that collecting
// more often costs nothing that can be measured, and the default would double what is resident.
const gcPercent = 25

// settle gives back what only the start needed: its garbage, and the pages of the program that it went through
// (flags, catalogue, templates), two thirds of it. They stay in the page cache, where the kernel is free to
// take them.
func settle() {
	debug.FreeOSMemory()
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return // it only costs memory
	}
	defer maps.Close()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		// "00400000-00fa4000 r-xp 00000000 fe:00 10306257   /usr/bin/jindan", proc_pid_maps(5)
		f := strings.Fields(lines.Text())
		if len(f) < 6 || f[5] != exe || f[1][1] == 'w' {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(start), uintptr(end-start), unix.MADV_DONTNEED) // as above
		}
	}
}
