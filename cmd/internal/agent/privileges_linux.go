package agent

import (
	"fmt"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blindToProcesses says what is lost if other users' processes cannot be looked at; empty: nothing. Listing
// /proc/PID/fd takes CAP_DAC_READ_SEARCH, what its links lead to CAP_SYS_PTRACE (proc(5), ptrace(2)).
func blindToProcesses() string {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // capabilities 0 to 31, 32 to 63
	if err := unix.Capget(&hdr, &sets[0]); err != nil {
		return fmt.Sprintf("owners of sockets and threads of other users: read the own capabilities: %v", err)
	}
	var missing []string
	if sets[0].Effective&(1<<unix.CAP_SYS_PTRACE) == 0 {
		missing = append(missing, "CAP_SYS_PTRACE")
	}
	if sets[0].Effective&(1<<unix.CAP_DAC_READ_SEARCH|1<<unix.CAP_DAC_OVERRIDE) == 0 {
		missing = append(missing, "CAP_DAC_READ_SEARCH")
	}
	if len(missing) == 0 {
		return ""
	}
	return "owners of sockets and threads of other users: run as root, or with " + strings.Join(missing, " and ")
}

// needed are the capabilities that the agent keeps: packets, other users' processes, and, where it watches other network
// namespaces, entering them. Files that it writes are its own user's, unless foreign says that they are not.
func needed(namespaces, foreign bool) []uint {
	keep := []uint{unix.CAP_NET_RAW, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}
	if namespaces {
		keep = append(keep, unix.CAP_SYS_ADMIN)
	}
	if foreign {
		keep = append(keep, unix.CAP_DAC_OVERRIDE)
	}
	return keep
}

// foreign tells whether one of the directories belongs to another user than this process.
func foreign(dirs ...string) bool {
	for _, d := range dirs {
		var st unix.Stat_t
		if d != "" && unix.Stat(d, &st) == nil && int(st.Uid) != unix.Geteuid() {
			return true
		}
	}
	return false
}

// dropPrivileges gives up every capability but those of keep, in all threads and for good: what parses strangers' bytes holds
// none that it does not need. A process that has less already keeps what it has.
func dropPrivileges(keep []uint) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var now [2]unix.CapUserData
	if err := unix.Capget(&hdr, &now[0]); err != nil {
		return fmt.Errorf("read the own capabilities: %w", err)
	}
	var mask [2]uint32
	for _, c := range keep {
		mask[c/32] |= 1 << (c % 32)
	}
	all := func(trap, a1, a2, a3 uintptr) error {
		if _, _, errno := syscall.AllThreadsSyscall(trap, a1, a2, a3); errno != 0 {
			return errno
		}
		return nil
	}
	if err := all(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if now[0].Effective&(1<<unix.CAP_SETPCAP) != 0 {
		for c := uint(0); c <= unix.CAP_LAST_CAP; c++ {
			if mask[c/32]&(1<<(c%32)) == 0 {
				_ = all(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0) // an older kernel knows fewer
			}
		}
	}
	before := now
	for i := range now {
		now[i].Effective &= mask[i]
		now[i].Permitted &= mask[i]
		now[i].Inheritable &= mask[i]
	}
	if now == before { // as under the unit, whose filter refuses capset(2)
		return nil
	}
	if err := all(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&now[0])), 0); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}
