//go:build linux && !race

package privsep

import (
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Confine bounds what this process may open from now on, by Landlock: directories and files that it reads, and directories that it writes
// in. It may execute nothing. Where the kernel has no Landlock (Linux before 5.13, or switched off) nothing changes, and it
// reports false.
func Confine(read, write []string) (bool, error) {
	if v, err := ll.LandlockGetABIVersion(); err != nil || v < 1 {
		return false, nil
	}
	var rules []landlock.Rule
	for _, path := range read {
		access := landlock.AccessFSSet(ll.AccessFSReadFile)
		if info, err := os.Stat(path); err != nil {
			continue
		} else if info.IsDir() {
			access |= ll.AccessFSReadDir
		}
		rules = append(rules, landlock.PathAccess(access, path))
	}
	if len(write) > 0 {
		const all = ll.AccessFSReadFile | ll.AccessFSReadDir | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeDir |
			ll.AccessFSMakeReg | ll.AccessFSMakeSock | ll.AccessFSRemoveDir | ll.AccessFSRemoveFile
		rules = append(rules, landlock.PathAccess(all, write...).IgnoreIfMissing())
	}
	// V3 is all that concerns files and has no say in connections.
	if err := landlock.V3.BestEffort().RestrictPaths(rules...); err != nil {
		return false, fmt.Errorf("landlock: %w", err)
	}
	return true, nil
}
