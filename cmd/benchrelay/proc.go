//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of CPU time in /proc/<pid>/stat: USER_HZ is 100 on every
// Linux that Go runs on.
const tick = 10 * time.Millisecond

// procStat is what is read of /proc/<pid>/stat (proc(5)).
type procStat struct {
	parent   int
	own      time.Duration // user and system time
	children time.Duration // of children that have ended and been waited for
}

func readStat(pid int) (procStat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	// The name of the program, in parentheses, may hold anything.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 15 {
		return procStat{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	n := func(i int) int { v, _ := strconv.Atoi(string(fields[i])); return v }
	return procStat{
		parent:   n(1),
		own:      time.Duration(n(11)+n(12)) * tick,
		children: time.Duration(n(13)+n(14)) * tick,
	}, nil
}

// cpu gives the CPU time of one process so far.
func cpu(pid int) time.Duration {
	s, err := readStat(pid)
	if err != nil {
		return 0
	}
	return s.own
}

// tree gives the pids of a process and of everything it started that lives.
func tree(root int) []int {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil {
			children[s.parent] = append(children[s.parent], pid)
		}
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// cpuOfTree gives the CPU time of a process and its descendants so far, those
// that have ended included.
func cpuOfTree(root int) (sum time.Duration) {
	for _, pid := range tree(root) {
		if s, err := readStat(pid); err == nil {
			sum += s.own + s.children
		}
	}
	return sum
}

// memory reads a line such as VmHWM of /proc/<pid>/<file>, in bytes.
func memory(pid int, file, key string) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10
		}
	}
	return 0
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
