package powerloss

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// simulation is what is certain and what is not when the power fails. It promises only
// what POSIX does: a synced file has its data and size, a synced directory its names.
// What ext4, xfs and btrfs keep beyond that lies among what may be kept.
type simulation struct {
	durable *disk
	pending []operation // not synced, in their order
}

func newSimulation(base *disk) *simulation { return &simulation{durable: base.clone()} }

// step takes the next operation.
func (s *simulation) step(o operation) {
	switch {
	case o.isData() || o.isName():
		o.introduce(s.durable)
		s.pending = append(slices.Clip(s.pending), o)
	case o.kind == syncAll:
		for _, p := range s.pending {
			p.apply(s.durable)
		}
		s.pending = nil
	case o.kind == sync:
		var left []operation
		for _, p := range s.pending {
			if p.isData() && p.node == o.node || p.touches(o.node) {
				p.apply(s.durable)
			} else {
				left = append(left, p)
			}
		}
		s.pending = left
	}
}

// crash is one disk that a loss of power may leave behind.
type crash struct {
	name string // the way of which file system, and of which operation
	disk *disk
}

// dataFate is what becomes of a write or a change of size that was not synced.
type dataFate int

const (
	kept    dataFate = iota
	dropped          // as if it had never been: a new file is empty
	zeroed           // the size has reached the disk, and the data has not
	firstHalf
	secondHalf
	interleaved // every other sector, the second one first
	someOfIt    // sectors at random
)

// applied does to a disk what has reached it of an operation on data.
func applied(d *disk, o operation, fate dataFate, rng *rand.Rand) {
	if fate == kept || o.kind == resize && fate != dropped {
		o.apply(d)
		return
	}
	if fate == dropped {
		return
	}
	end := o.offset + int64(len(o.data))
	if int64(len(d.files[o.node])) < end {
		d.resize(o.node, end)
	}
	if fate == zeroed {
		return
	}
	data := slices.Clone(d.files[o.node])
	d.files[o.node] = data
	first, last := o.offset/sector, (end-1)/sector
	for at := first; at <= last; at++ {
		var here bool
		switch fate {
		case firstHalf:
			here = at-first < (last-first+1+1)/2
		case secondHalf:
			here = at-first >= (last-first+1+1)/2
		case interleaved:
			here = (at-first)%2 == 1
		case someOfIt:
			here = rng.IntN(2) == 0
		}
		if here {
			from, to := max(at*sector, o.offset), min((at+1)*sector, end)
			copy(data[from:to], o.data[from-o.offset:])
		}
	}
}

// spans is how many sectors a write touches.
func spans(o operation) int64 {
	if o.kind != write || len(o.data) == 0 {
		return 0
	}
	return (o.offset+int64(len(o.data))-1)/sector - o.offset/sector + 1
}

// choice says of every pending operation, by its index, what becomes of it.
type choice struct {
	name func(i int) bool
	data func(i int) dataFate
}

func every[T any](v T) func(int) T { return func(int) T { return v } }

// crashes calls f for every way in which the power may fail now, and for n ways at
// random. Many of them look the same.
func (s *simulation) crashes(n int, rng *rand.Rand, f func(crash)) {
	emit := func(name string, c choice) {
		d := s.durable.clone()
		for i, o := range s.pending {
			switch {
			case o.isData():
				applied(d, o, c.data(i), rng)
			case c.name(i):
				o.apply(d)
			}
		}
		f(crash{name, d})
	}
	all, none := every(true), every(false)
	emit("killed: everything kept", choice{all, every(kept)})
	if len(s.pending) == 0 {
		return
	}
	emit("everything dropped", choice{none, every(dropped)})
	for i, o := range s.pending {
		this := func(j int) bool { return i == j }
		other := func(j int) bool { return i != j }
		emit("dropped alone: "+o.words, choice{other, func(j int) dataFate { return fateIf(other(j)) }})
		emit("kept alone: "+o.words, choice{this, func(j int) dataFate { return fateIf(this(j)) }})
	}
	emit("ext4, delayed allocation: names kept, files without their data", choice{all, every(dropped)})
	emit("xfs, delayed allocation: names kept, files of zeros", choice{all, every(zeroed)})
	emit("data kept, names dropped", choice{none, every(kept)})
	s.inOrder(emit)
	s.byDirectory(emit)
	s.reordered(emit)
	s.torn(emit)
	for k := range n {
		names, fates := map[int]bool{}, map[int]dataFate{}
		for i, o := range s.pending {
			names[i] = rng.IntN(2) == 0
			switch o.kind {
			case write:
				fates[i] = dataFate(rng.IntN(int(someOfIt) + 1))
			default:
				fates[i] = fateIf(rng.IntN(2) == 0)
			}
		}
		emit(fmt.Sprintf("at random %d", k+1), choice{func(i int) bool { return names[i] }, func(i int) dataFate { return fates[i] }})
	}
}

func fateIf(keep bool) dataFate {
	if keep {
		return kept
	}
	return dropped
}

// names are the indices of the pending operations on names.
func (s *simulation) names() []int {
	var list []int
	for i, o := range s.pending {
		if o.isName() {
			list = append(list, i)
		}
	}
	return list
}

// inOrder has names reach the disk in their order, through one log for all
// directories, as ext4 and xfs have it.
func (s *simulation) inOrder(emit func(string, choice)) {
	names := s.names()
	for cut := 1; cut < len(names); cut++ {
		until := func(i int) bool { return i <= names[cut-1] }
		up := "names up to: " + s.pending[names[cut-1]].words
		emit("ext4, data=ordered: "+up, choice{until, every(kept)})
		emit("ext4, delayed allocation: "+up, choice{until, every(dropped)})
		emit("xfs, delayed allocation: "+up, choice{until, every(zeroed)})
	}
}

// byDirectory has each directory's names reach the disk or not, as btrfs may when it
// logs one directory and not another.
func (s *simulation) byDirectory(emit func(string, choice)) {
	var dirs []node
	for _, i := range s.names() {
		if dir := s.pending[i].dir; !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	sets := map[string][]node{}
	if len(dirs) <= 4 {
		for bits := 1; bits < 1<<len(dirs)-1; bits++ {
			var set []node
			for i, dir := range dirs {
				if bits&(1<<i) != 0 {
					set = append(set, dir)
				}
			}
			sets[fmt.Sprint(set)] = set
		}
	} else {
		for i, dir := range dirs {
			sets[fmt.Sprint("only ", dir)] = []node{dir}
			sets[fmt.Sprint("not ", dir)] = slices.Delete(slices.Clone(dirs), i, i+1)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(sets)) {
		set := sets[key]
		in := func(i int) bool { return slices.Contains(set, s.pending[i].dir) }
		var first []string
		for _, dir := range set {
			for _, i := range s.names() {
				if s.pending[i].dir == dir {
					first = append(first, s.pending[i].words)
					break
				}
			}
		}
		of := "the directories of: " + strings.Join(first, ", ")
		emit("btrfs, names of some directories: "+of, choice{in, every(kept)})
		emit("btrfs, names of some directories, no data: "+of, choice{in, every(dropped)})
	}
}

// reordered has a later name reach the disk without the earlier ones of other
// directories, as btrfs and xfs may.
func (s *simulation) reordered(emit func(string, choice)) {
	names := s.names()
	for _, at := range names[min(1, len(names)):] {
		dir := s.pending[at].dir
		from := func(i int) bool { return i >= at || s.pending[i].dir == dir }
		emit("btrfs, without what was earlier elsewhere: "+s.pending[at].words, choice{from, every(kept)})
	}
}

// torn has a write reach the disk in part.
func (s *simulation) torn(emit func(string, choice)) {
	for i, o := range s.pending {
		if spans(o) < 2 {
			continue
		}
		for fate, how := range map[dataFate]string{firstHalf: "first half", secondHalf: "second half", interleaved: "every other sector"} {
			with := func(rest dataFate) func(int) dataFate {
				return func(j int) dataFate {
					if i == j {
						return fate
					}
					return rest
				}
			}
			emit("torn, "+how+", all else kept: "+o.words, choice{every(true), with(kept)})
			emit("torn, "+how+", all else dropped: "+o.words, choice{every(false), with(dropped)})
		}
	}
}
