package agent

import (
	"strings"

	"golang.org/x/sys/unix"
)

// blindToProcesses says what is lost if other users' processes cannot be looked at, with the capabilities held; empty: nothing. Listing
// /proc/PID/fd takes CAP_DAC_READ_SEARCH, what its links lead to CAP_SYS_PTRACE (proc(5), ptrace(2)).
func blindToProcesses(held uint64) string {
	var missing []string
	if held&(1<<unix.CAP_SYS_PTRACE) == 0 {
		missing = append(missing, "CAP_SYS_PTRACE")
	}
	if held&(1<<unix.CAP_DAC_READ_SEARCH|1<<unix.CAP_DAC_OVERRIDE) == 0 {
		missing = append(missing, "CAP_DAC_READ_SEARCH")
	}
	if len(missing) == 0 {
		return ""
	}
	return "owners of sockets and threads of other users: run as root, or with " + strings.Join(missing, " and ")
}

// needed are the capabilities that the agent keeps: packets, other users' processes, and, where it watches other network
// namespaces, entering them; a worker leaves all that to its keeper. Files that it writes are its own user's, unless foreign says that they are not.
func needed(worker, namespaces, foreign bool) []uint {
	var keep []uint
	if !worker {
		keep = append(keep, unix.CAP_NET_RAW, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH)
	}
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
