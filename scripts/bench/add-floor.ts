/**
 * The floor of `add`: read, BLAKE3, SHA-256 and write the same bytes in one plain single-threaded loop, then sync.
 * `node add-floor.ts SOURCE [TARGET]`; without TARGET nothing is written. Prints seconds.
 */
import { createHash } from 'node:crypto'
import { closeSync, fdatasyncSync, openSync, readdirSync, readSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { createBlockHasher } from '../../src/model/index.ts'

const [source = '', target] = process.argv.slice(2)
const buffer = Buffer.alloc(4 * 1024 * 1024)
const started = performance.now()
const files = statSync(source).isDirectory() ? readdirSync(source).map(name => join(source, name)) : [source]
for (const [i, path] of files.entries()) {
  const from = openSync(path, 'r')
  const to = target === undefined ? undefined : openSync(join(target, String(i)), 'w')
  const sha256 = createHash('sha256')
  for (;;) {
    const length = readSync(from, buffer, 0, buffer.length, null)
    if (length === 0) break
    const bytes = buffer.subarray(0, length)
    const blake3 = createBlockHasher()
    blake3.update(bytes)
    blake3.digest()
    sha256.update(bytes)
    if (to !== undefined) writeSync(to, bytes)
  }
  sha256.digest()
  closeSync(from)
  if (to !== undefined) { fdatasyncSync(to); closeSync(to) }
}
console.log((performance.now() - started) / 1000)
