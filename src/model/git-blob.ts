import { createHash, type Hash } from 'node:crypto'

/** Of a file of `size` bytes, from its first on: what git names a blob by, the SHA-1 of a head and the content (git-scm.com/book, Git Internals, Git Objects). */
export function gitBlobHash (size: number): Hash {
  return createHash('sha1').update(`blob ${size}\0`)
}
