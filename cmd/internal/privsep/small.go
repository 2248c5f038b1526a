//go:build linux

package privsep

import (
	"os"
	"runtime"
	"runtime/debug"
	"unsafe"

	"github.com/google/gopacket/layers" //nolint:depguard // reads nothing with it: gives its tables back
	"golang.org/x/sys/unix"
)

// shrink gives back what the program's packages have made for others by the time that a keeper begins: 8 of 11 MB. Two tables of gopacket,
// which decodes packets, are most of it; in a keeper nothing decodes any.
func shrink() {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(25)
	give(unsafe.Pointer(&layers.EthernetTypeMetadata), unsafe.Sizeof(layers.EthernetTypeMetadata))
	give(unsafe.Pointer(&layers.PPPTypeMetadata), unsafe.Sizeof(layers.PPPTypeMetadata))
	debug.FreeOSMemory()
}

// give gives the whole pages of a variable back, which is zero then: the variables of a program that begin as zero are anonymous memory.
func give(at unsafe.Pointer, size uintptr) {
	page := uintptr(os.Getpagesize())
	skip := -uintptr(at) & (page - 1)
	if size < skip+page {
		return
	}
	whole := (size - skip) &^ (page - 1)
	_ = unix.Madvise(unsafe.Slice((*byte)(unsafe.Add(at, skip)), whole), unix.MADV_DONTNEED) // else it stays as large as it was
}
