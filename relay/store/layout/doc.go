// Package layout says what stands where in the database, and in which form. It is
// pure: it makes keys and values and reads them, and knows no database.
//
//	keys.go     the keys, and why they sort as they do
//	records.go  messages and deliveries
//	rows.go     rows of the outbox
//
// Whoever changes what older data means raises [Version] and says there how the
// older data is read.
package layout

// Version is the number of the layout. A program refuses a database with a number
// that it does not know.
//
// Layout 3 differs from layout 2 by rows of the outbox that an older program would
// send as they are (rows.go). The rows of layout 2 are read as ever.
const Version = 3
