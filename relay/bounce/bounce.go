// Package bounce writes delivery status notifications.
package bounce
