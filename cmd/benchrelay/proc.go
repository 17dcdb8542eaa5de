//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// cpu is the CPU time of one process so far; 0 when it has ended.
func cpu(pid int) time.Duration {
	p, err1 := procfs.NewProc(pid)
	s, err2 := p.Stat()
	if err1 != nil || err2 != nil {
		return 0
	}
	return time.Duration(s.CPUTime() * float64(time.Second))
}

// tree gives a process and everything it started that lives.
func tree(root int) (all []procfs.ProcStat) {
	procs, _ := procfs.AllProcs()
	children := map[int][]procfs.ProcStat{}
	for _, p := range procs {
		if s, err := p.Stat(); err == nil {
			children[s.PPID] = append(children[s.PPID], s)
			if s.PID == root {
				all = append(all, s)
			}
		}
	}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i].PID]...)
	}
	return all
}

// cpuOfTree is the CPU time of a process and its descendants so far, those that have
// ended included.
func cpuOfTree(root int) (sum time.Duration) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	for _, s := range tree(root) {
		sum += tick * time.Duration(int(s.UTime+s.STime)+s.CUTime+s.CSTime)
	}
	return sum
}

// memory is the memory of a process in octets, at its peak and now.
func memory(pid int) (peak, resident int64) {
	p, err1 := procfs.NewProc(pid)
	s, err2 := p.NewStatus()
	if err1 != nil || err2 != nil {
		return 0, 0
	}
	return int64(s.VmHWM), int64(s.VmRSS)
}

// share is the memory of a process in octets, with its part of what it shares.
func share(pid int) int64 {
	p, err1 := procfs.NewProc(pid)
	s, err2 := p.ProcSMapsRollup()
	if err1 != nil || err2 != nil {
		return 0
	}
	return int64(s.Pss)
}

// resetPeak makes VmHWM begin anew, where that is allowed.
func resetPeak(pid int) { os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) }

// flushes counts what the disk under dir was asked to flush, by anybody; 0 where the
// kernel does not say.
func flushes(dir string) float64 {
	info, err := os.Stat(dir)
	if err != nil {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	major, minor := st.Dev>>8&0xfff|st.Dev>>32&^0xfff, st.Dev&0xff|st.Dev>>12&^0xff // gnu_dev_major(3)
	text, _ := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", major, minor))
	const processed = 15 // Documentation/block/stat.rst: flush I/Os processed
	fields := strings.Fields(string(text))
	if len(fields) <= processed {
		return 0
	}
	n, _ := strconv.ParseFloat(fields[processed], 64)
	return n
}
