// Package engine is the embedded database under the store: pebble, and what it takes
// to live with it on a disk that fails or is full. It knows of keys only where its
// tables should end, and nothing of mail or tenants.
//
//	engine.go   Open, Enter, Leave: one instance after the other; Run opens the next
//	db.go       DB, one instance: Get, Each, Apply, Sync
//	sync.go     when what nobody waits for is synced
//	faultfs.go  the file system that stops at the first failed write
//	splits.go   where the tables of the database end
//	version.go  which layout a database has
//	room.go     who may write how much of new mail
//	ballast.go  room that is kept for an opening of the database on a full disk
//
// # When the disk fails
//
// Pebble has no way back from a failed write to its log: it panics, or calls
// Logger.Fatalf, which is meant to end the process. A relay must not die of a
// full disk, so the fault-stopping file system stands between pebble and the files.
// The first write that fails stops it: from then on nothing of that database instance
// reaches the disk, pebble believes that all is well, and every call that was not
// finished before returns relay.ErrUnavailable or ErrNoSpace. On disk this is a crash
// at that point, which pebble recovers from. Run then closes the instance and opens
// the database anew, until that works.
package engine
