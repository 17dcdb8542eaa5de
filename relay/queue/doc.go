// Package queue says when: it holds the lanes, one per destination and policy
// class, and sees each delivery from its turn to its commit.
package queue
