package main

import (
	"fmt"
	"strings"

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
