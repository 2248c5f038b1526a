package decode

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// drop gives back the whole pages of a variable, which then reads as zero (madvise(2), MADV_DONTNEED of private memory).
func drop(at unsafe.Pointer, size uintptr) {
	page := uintptr(unix.Getpagesize())
	skip := -uintptr(at) & (page - 1)
	if size < skip+page {
		return
	}
	whole := unsafe.Slice((*byte)(unsafe.Add(at, skip)), (size-skip)&^(page-1))
	_ = unix.Madvise(whole, unix.MADV_DONTNEED) // else they stay
}
