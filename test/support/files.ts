import { createCipheriv, createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { seededRandom, type Random } from '../../src/base/index.ts'

/** A temporary directory that goes away with `await using`. */
export async function temporaryDirectory (name: string, parent = tmpdir()): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(parent, `shoal-${name}-`))
  return { path, [Symbol.asyncDispose]: async () => { await rm(path, { recursive: true, force: true }) } }
}

/** So much noise: a key stream fills faster than drawing each byte. */
export function contentOf (random: Random, bytes: number): Buffer {
  return createCipheriv('aes-128-ctr', random.bytes(16), Buffer.alloc(16)).update(Buffer.alloc(bytes))
}

/** Writes files of seeded noise: `{ 'a/b.bin': 1000 }` makes 1,000 bytes. */
export async function writeTree (directory: string, files: Record<string, number>, seed = 1): Promise<void> {
  for (const [position, [path, size]] of Object.entries(files).entries()) {
    const target = join(directory, path)
    await mkdir(dirname(target), { recursive: true })
    await writeFile(target, contentOf(seededRandom(seed * 1000 + position), size))
  }
}

/** sha-256 in hex of every file below `directory`, by relative path. */
export async function hashTree (directory: string): Promise<Record<string, string>> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  const result: Record<string, string> = {}
  for (const path of entries.filter(entry => !entry.isDirectory()).map(entry => join(entry.parentPath, entry.name)).sort()) {
    const hash = createHash('sha256')
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
    result[relative(directory, path)] = hash.digest('hex')
  }
  return result
}
