import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BLOCK_BYTES_MAX, MiB, randomInt, seededRandom, silentLogger, systemClock, type Random } from '../../src/base/index.ts'
import { encodeFileIndex, encodeManifest, hashBlock, type Encoded, type FileIndex, type Model } from '../../src/model/index.ts'
import { SlotPool, createFileStore, type FileStoreInit, type ModelStore, type RunningAdd, type Slot, type StoreSettings, type StoredFile } from '../../src/storage/index.ts'
import { contentOf } from '../support/files.ts'

export { contentOf }

/** A file with its content, as a publisher has it. */
export interface SampleFile { path: string, content: Buffer, index: Encoded<FileIndex> }
export interface Sample { model: Model, files: SampleFile[], cid: string, bytes: number }

export const settings: StoreSettings = { quota: undefined, directIo: 'auto', slots: 4, syncBytes: 8 * MiB, syncIntervalMs: 20 }

/** A seed for this run: SHOAL_SEED to repeat one that was printed. */
export function seedOf (): number {
  const given = Number(process.env.SHOAL_SEED)
  return Number.isInteger(given) && given > 0 ? given : Date.now() % 1_000_000_000
}

/** Sizes that add up to `size`, of no alignment at all, some tiny and some of a full block. */
export function raggedSizes (random: Random, size: number): number[] {
  const sizes: number[] = []
  for (let left = size; left > 0;) {
    const kind = random.next()
    const most = kind < 0.2 ? 100 : kind < 0.5 ? 20_000 : BLOCK_BYTES_MAX
    const next = Math.min(left, kind > 0.9 ? BLOCK_BYTES_MAX : 1 + randomInt(random, most))
    sizes.push(next)
    left -= next
  }
  return sizes
}

export function indexOf (content: Buffer, sizes: number[]): Encoded<FileIndex> {
  let offset = 0
  const blocks = sizes.map(size => hashBlock(content.subarray(offset, offset += size)))
  return encodeFileIndex({ version: 1, size: content.length, sha256: createHash('sha256').update(content).digest(), chunker: 'fixed', blocks, sizes })
}

export function sampleOf (files: Array<{ path: string, content: Buffer, sizes?: number[] }>, random: Random = seededRandom(1)): Sample {
  const made = files
    .map(({ path, content, sizes }) => ({ path, content, index: indexOf(content, sizes ?? raggedSizes(random, content.length)) }))
    .sort((a, b) => (a.path < b.path ? -1 : 1))
  const manifest = encodeManifest({ version: 1, files: made.map(({ path, content, index }) => ({ path, size: content.length, index: index.cid })) })
  return { model: { manifest, indexes: made.map(({ index }) => index) }, files: made, cid: manifest.cid.toString(), bytes: made.reduce((sum, { content }) => sum + content.length, 0) }
}

/** A model of one file of `blocks` blocks of 10,000 bytes or so. */
export function smallModel (seed: number, blocks = 8): Sample {
  const random = seededRandom(seed)
  const sizes = Array.from({ length: blocks }, () => 5_000 + randomInt(random, 10_000))
  const content = contentOf(random, sizes.reduce((sum, size) => sum + size, 0))
  return sampleOf([{ path: 'model.bin', content, sizes }])
}

export function fileOf (store: ModelStore, sample: Sample, position = 0): StoredFile {
  const file = store.model(sample.cid)?.files[position]
  if (file === undefined) throw new Error(`the store lacks file ${position} of ${sample.cid}`)
  return file
}

const slots = new SlotPool(4)

export async function withSlot<T> (work: (slot: Slot) => Promise<T>): Promise<T> {
  const slot = await new Promise<Slot>(resolve => { slots.acquire(resolve) })
  try {
    return await work(slot)
  } finally {
    slot.release()
  }
}

/** Writes one block as a load would. */
export async function writeBlock (store: ModelStore, file: StoredFile, content: Buffer, block: number): Promise<void> {
  await withSlot(async slot => {
    const offset = file.offsets[block] ?? 0
    const size = file.index.sizes[block] ?? 0
    slot.prepare(offset, size).set(content.subarray(offset, offset + size))
    await store.writeBlock(file, block, slot)
  })
}

/** Registers a model and writes all of it. */
export async function load (store: ModelStore, sample: Sample): Promise<void> {
  await store.putModel(sample.model)
  for (const [position, { content }] of sample.files.entries()) {
    const file = fileOf(store, sample, position)
    for (let block = 0; block < file.index.blocks.length; block++) await writeBlock(store, file, content, block)
  }
  await store.flush()
}

/** Imports one file's blocks and commits it. */
export async function importAll (store: ModelStore, { content, index }: SampleFile, add?: RunningAdd): Promise<{ file: StoredFile, newBytes: number }> {
  const target = await store.importFile(content.length, { add })
  let offset = 0
  for (const size of index.value.sizes) {
    const at = offset
    await withSlot(async slot => {
      slot.prepare(at, size).set(content.subarray(at, at + size))
      await target.write(at, slot)
    })
    offset += size
  }
  return await target.commit(index)
}

/** The bytes of a recorded block, or undefined when the store withdrew it. */
export async function readBlock (store: ModelStore, file: StoredFile, block: number): Promise<Buffer | undefined> {
  return await withSlot(async slot => {
    const location = { file, block, offset: file.offsets[block] ?? 0, size: file.index.sizes[block] ?? 0 }
    return await store.readBlock(location, slot) ? Buffer.from(slot.bytes) : undefined
  })
}

export async function temporaryDirectory (): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(process.env.SHOAL_TEST_DIR ?? tmpdir(), 'shoal-store-'))
  return { path, [Symbol.asyncDispose]: async () => { await rm(path, { recursive: true, force: true }) } }
}

export function fileStore (directory: string, init: Partial<Omit<FileStoreInit, 'settings'>> & { settings?: Partial<StoreSettings> } = {}): ModelStore {
  return createFileStore({ directory, clock: systemClock, random: seededRandom(7), logger: silentLogger, ...init, settings: { ...settings, ...init.settings } })
}

/** Resolves with the detail of the next event of that name. */
export function nextEvent<K extends Parameters<ModelStore['events']['on']>[0]> (store: ModelStore, name: K): Promise<void> {
  return new Promise(resolve => {
    const off = store.events.on(name, () => { off(); resolve() })
  })
}

export interface Told { present: Array<[string, number]>, lost: Array<[string, number]>, complete: string[], removed: string[] }

/** Everything the store tells from now on: files by key, with block numbers. */
export function told (store: ModelStore): Told {
  const log: Told = { present: [], lost: [], complete: [], removed: [] }
  store.events.on('blocks:present', ({ file, blocks }) => { for (const block of blocks) log.present.push([file.key, block]) })
  store.events.on('blocks:lost', ({ file, blocks }) => { for (const block of blocks) log.lost.push([file.key, block]) })
  store.events.on('file:complete', ({ file }) => { log.complete.push(file.key) })
  store.events.on('model:removed', ({ cid }) => { log.removed.push(cid) })
  return log
}
