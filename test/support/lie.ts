import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB, silentLogger, systemClock, systemRandom } from '../../src/base/index.ts'
import { encodeFileIndex, encodeManifest, hashBlock } from '../../src/model/index.ts'
import { defaultSettings } from '../../src/node/index.ts'
import { SlotPool, createFileStore } from '../../src/storage/index.ts'

/** A model with these files; `told` are the bytes whose hashes its indexes name, `git` those whose git SHA-1, where it is not of the same. In a data directory whose links say that it is a/b. */
export async function lie (directory: string, commit: string, files: Record<string, { told: Buffer, held: Buffer, git?: Buffer }>): Promise<string> {
  const store = createFileStore({ directory, clock: systemClock, random: systemRandom, logger: silentLogger, settings: defaultSettings.storage })
  await store.start()
  const slots = new SlotPool(1)
  const indexes = []
  const entries = []
  for (const [path, { told, held, git = told }] of Object.entries(files)) {
    const target = await store.importFile(held.length)
    const blocks = []
    const sizes = []
    for (let at = 0; at < held.length; at += 4 * MiB) {
      const piece = held.subarray(at, at + 4 * MiB)
      const slot = await new Promise<Parameters<typeof target.write>[1]>(resolve => { slots.acquire(resolve) })
      slot.prepare(at, piece.length).set(piece)
      await target.write(at, slot)
      slot.release()
      blocks.push(hashBlock(piece))
      sizes.push(piece.length)
    }
    const index = encodeFileIndex({
      version: 1, size: held.length, sha256: createHash('sha256').update(told).digest(), chunker: 'fixed', blocks, sizes,
      gitSha1: held.length > MiB ? undefined : createHash('sha1').update(`blob ${git.length}\0`).update(git).digest()
    })
    await target.commit(index)
    indexes.push(index)
    entries.push({ path, size: held.length, index: index.cid })
  }
  const manifest = encodeManifest({ version: 1, files: entries })
  await store.putModel({ manifest, indexes }, { published: true })
  await store.stop()
  const cid = manifest.cid.toString()
  await writeFile(join(directory, 'links.json'), JSON.stringify({ version: 1, links: [{ repo: 'a/b', revision: 'main', cid, linkedAt: 0, origin: { commit, restricted: false } }] }))
  return cid
}
