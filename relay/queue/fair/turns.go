package fair

// FIFO is a queue on a slice; the zero FIFO is empty.
type FIFO[T any] struct {
	items []T
	head  int
}

// Len is how many items there are.
func (f *FIFO[T]) Len() int { return len(f.items) - f.head }

// Push appends an item.
func (f *FIFO[T]) Push(x T) { f.items = append(f.items, x) }

// Front shows the first item; the FIFO must have one.
func (f *FIFO[T]) Front() T { return f.items[f.head] }

// Pop takes the first item; the FIFO must have one.
func (f *FIFO[T]) Pop() T {
	var zero T
	x := f.items[f.head]
	f.items[f.head] = zero
	f.head++
	switch {
	case f.head == len(f.items):
		f.items, f.head = f.items[:0], 0
		if cap(f.items) > 64 {
			f.items = nil // a burst is over
		}
	case f.head > 32 && f.head > len(f.items)/2:
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	return x
}

// Turns are items that wait for something of which there is one at a time. Owners
// take turns, and so do the items of each: an owner with a thousand items gets no
// more turns than one with a single item. The zero Turns is empty.
type Turns[O comparable, T any] struct {
	owners FIFO[*line[O, T]]
	lines  map[O]*line[O, T]
	n      int
}

// line is what one owner has waiting.
type line[O comparable, T any] struct {
	owner O
	items FIFO[T]
}

// Len is how many items wait.
func (t *Turns[O, T]) Len() int { return t.n }

// Push appends an item of an owner.
func (t *Turns[O, T]) Push(owner O, x T) {
	l := t.lines[owner]
	if l == nil {
		if t.lines == nil {
			t.lines = make(map[O]*line[O, T])
		}
		l = &line[O, T]{owner: owner}
		t.lines[owner] = l
		t.owners.Push(l)
	}
	l.items.Push(x)
	t.n++
}

// Pop takes the item whose turn it is; false when none waits.
func (t *Turns[O, T]) Pop() (x T, ok bool) {
	if t.n == 0 {
		return x, false
	}
	l := t.owners.Pop()
	x = l.items.Pop()
	t.n--
	if l.items.Len() > 0 {
		t.owners.Push(l)
	} else {
		delete(t.lines, l.owner)
	}
	return x, true
}

// RankSet is a set of ranks; the zero RankSet is empty.
type RankSet uint8

// Remove takes r out of the set.
func (in *RankSet) Remove(r Rank) { *in &^= 1 << r }

// RankedFIFO is a FIFO for each rank. Ranks take turns, and so do the items of
// each. An item whose rank changes may stand in more than one FIFO: it is passed
// over where it no longer fits.
type RankedFIFO[T any] struct {
	of   [ranks]FIFO[T]
	last Rank // whose turn it was
}

// Push appends x to the FIFO of rank r, unless it stands there: in is where it
// stands.
func (f *RankedFIFO[T]) Push(x T, r Rank, in *RankSet) {
	if *in&(1<<r) == 0 {
		*in |= 1 << r
		f.of[r].Push(x)
	}
}

// Pop takes the item whose turn it is; false when none fits. It asks free once a
// rank, and fits of each item, which no longer stands in the FIFO of that rank.
func (f *RankedFIFO[T]) Pop(free func(Rank) bool, fits func(T, Rank) bool) (x T, ok bool) {
	for i := range ranks {
		r := (f.last + 1 + i) % ranks
		if f.of[r].Len() == 0 || !free(r) {
			continue
		}
		for f.of[r].Len() > 0 {
			if x := f.of[r].Pop(); fits(x, r) {
				f.last = r
				return x, true
			}
		}
	}
	return x, false
}

// RankedTurns are Turns for each rank. Ranks take turns as well.
type RankedTurns[O comparable, T any] struct {
	of   [ranks]Turns[O, T]
	last Rank // whose turn it was
}

// Push appends an item of an owner to the turns of rank r.
func (t *RankedTurns[O, T]) Push(r Rank, owner O, x T) { t.of[r].Push(owner, x) }

// Pop takes the item whose turn it is, and the rank it waited in; false when none
// waits that may go on. It asks free once a rank.
func (t *RankedTurns[O, T]) Pop(free func(Rank) bool) (x T, r Rank, ok bool) {
	for i := range ranks {
		r := (t.last + 1 + i) % ranks
		if t.of[r].Len() == 0 || !free(r) {
			continue
		}
		t.last = r
		x, ok = t.of[r].Pop()
		return x, r, ok
	}
	return x, 0, false
}
