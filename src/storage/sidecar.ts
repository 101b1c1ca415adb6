import { open, readFile, readdir, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { encode } from '@ipld/dag-cbor'
import { varint } from 'multiformats'
import type { CID } from 'multiformats/cid'
import { DiskError, FILE_INDEX_BYTES_MAX, MANIFEST_BYTES_MAX, MiB, asError, isRecord, systemCode, writeDurably, type Logger } from '../base/index.ts'
import { CID_BYTES, decodeCid, decodeFileIndex, decodeManifest, parseModelCid, type Encoded, type FileIndex, type Model } from '../model/index.ts'
import type { SavedModel } from './byte-store.ts'
import { Lock } from './concurrency.ts'
import { readFully } from './handles.ts'
import type { ModelRecord } from './records.ts'
import type { FileGuard } from './store.ts'

/**
 * What a lost catalog is rebuilt from, beside the files themselves: for each model one CAR file (ipld.io/specs/transport/car/carv1)
 * with its manifest and file indexes, which never changes, and one small JSON file with what may. When a model was last
 * used stands in the catalog only.
 */
const SECTION_BYTES_MAX = CID_BYTES + Math.max(MANIFEST_BYTES_MAX, FILE_INDEX_BYTES_MAX)
const WRITE_BYTES = 1 * MiB
const CAR_OR_JSON = /^b[a-z2-7]+\.(car|json)$/

interface Flags { pinned: boolean, published: boolean, addedAt: number, guards: Map<string, FileGuard>, others: Map<string, FileGuard[]> }

export class Sidecars {
  readonly #directory: string
  readonly #logger: Logger
  /** Models that were told to be lost. */
  readonly #told = new Set<string>()
  /** Two that write the same file at once would mix. */
  readonly #saving = new Lock()

  constructor (directory: string, logger: Logger) {
    this.#directory = directory
    this.#logger = logger
  }

  async saveModel (model: ModelRecord, content: Model): Promise<void> {
    await writeDurably(this.#path(model.cid, 'car'), carChunks(content))
    await this.saveFlags(model)
  }

  /** `otherPlaces` came later: whoever does not know it does without. */
  async saveFlags (model: ModelRecord): Promise<void> {
    await this.#saving.run(async () => {
      const inPlace: Record<string, FileGuard> = {}
      const otherPlaces: Record<string, FileGuard[]> = {}
      for (const { key, guard, known } of model.distinct) {
        if (guard !== undefined) inPlace[key] = guard
        const others = known.filter(place => place !== guard)
        if (others.length > 0) otherPlaces[key] = others
      }
      const { pinned, published, addedAt } = model
      const flags = { version: 1, pinned, published, addedAt, inPlace, ...(Object.keys(otherPlaces).length === 0 ? {} : { otherPlaces }) }
      await writeDurably(this.#path(model.cid, 'json'), Buffer.from(JSON.stringify(flags, undefined, 1)))
    })
  }

  async remove (cid: string): Promise<void> {
    for (const kind of ['json', 'car'] as const) {
      await unlink(this.#path(cid, kind)).catch(error => { if (systemCode(error) !== 'ENOENT') throw error })
    }
  }

  /**
   * The models that were kept here, one by one. What is damaged is told and left out, or of its flags taken for the safest. Throws the
   * system's error: what cannot be read today is no reason to go on without the model.
   */
  async * read (): AsyncGenerator<SavedModel> {
    for (const name of await readdir(this.#directory)) {
      if (!name.endsWith('.json')) continue
      const cid = name.slice(0, -'.json'.length)
      try {
        yield { model: await readCar(this.#path(cid, 'car'), parseModelCid(cid)), ...await this.#flags(cid) }
      } catch (error) {
        if (isSystemError(error)) throw new DiskError(`cannot read what was kept of the model ${cid}: ${asError(error).message}; mend that, and start again`, { cause: error })
        this.#logger.error({ cid, error: asError(error).message }, 'what was kept of this model is damaged; it has to be loaded or added again. What is left of it stands under models/')
      }
    }
  }

  /** Of flags that are damaged nobody knows whether the model may go: it may not. Files in place have to be added again. */
  async #flags (cid: string): Promise<Flags> {
    try {
      return parseFlags(await readFile(this.#path(cid, 'json'), 'utf8'))
    } catch (error) {
      if (isSystemError(error)) throw error
      this.#logger.error({ cid, error: asError(error).message }, 'the flags that were kept of this model are damaged; it counts as published')
      return { pinned: false, published: true, addedAt: (await stat(this.#path(cid, 'car'))).mtimeMs, guards: new Map(), others: new Map() }
    }
  }

  /**
   * Whether something was kept of a model that is not known, was pinned or published, and cannot be read: which files are its own nobody
   * knows, so none may go. What was only loaded may, and what can be read was removed.
   */
  async holdBack (known: ReadonlyMap<string, ModelRecord>): Promise<boolean> {
    let held = false
    for (const name of await readdir(this.#directory)) {
      if (!CAR_OR_JSON.test(name)) continue
      const cid = name.replace(/\..*$/, '')
      if (known.has(cid) || !await this.#isLost(cid)) continue
      held = true
      if (this.#told.has(cid)) continue
      this.#told.add(cid)
      this.#logger.error({ cid, path: join(this.#directory, name) }, 'leftovers stay, because what was kept of this model cannot be read and they may be its files; add it again from models/, or if it is not wanted any more delete what was kept')
    }
    return held
  }

  async #isLost (cid: string): Promise<boolean> {
    try {
      const { pinned, published } = parseFlags(await readFile(this.#path(cid, 'json'), 'utf8'))
      if (!pinned && !published) return false
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return false // it goes first when a model is removed, and comes last
    }
    return await readCar(this.#path(cid, 'car'), parseModelCid(cid)).then(() => false, () => true)
  }

  #path (cid: string, kind: 'car' | 'json'): string {
    return join(this.#directory, `${cid}.${kind}`)
  }
}

/** It says something about the disk, or this process. A file that is missing is missing. */
function isSystemError (error: unknown): boolean {
  const code = systemCode(error)
  return code !== undefined && code !== 'ENOENT' && !code.startsWith('ERR_') // those are Node's own
}

/** The sections of the CAR file, put together to pieces worth a write. */
function * carChunks ({ manifest, indexes }: Model): Generator<Uint8Array> {
  const header = encode({ version: 1, roots: [manifest.cid] })
  let pieces: Uint8Array[] = [length(header.length), header]
  let bytes = 0
  const written = new Set<string>()
  for (const { cid, bytes: body } of [manifest, ...indexes]) {
    const key = cid.toString()
    if (written.has(key)) continue
    written.add(key)
    pieces.push(length(cid.bytes.length + body.length), cid.bytes, body)
    bytes += body.length
    if (bytes < WRITE_BYTES) continue
    yield Buffer.concat(pieces)
    pieces = []
    bytes = 0
  }
  yield Buffer.concat(pieces)
}

function length (value: number): Uint8Array {
  return varint.encodeTo(value, new Uint8Array(varint.encodingLength(value)))
}

async function readCar (path: string, root: CID): Promise<Model> {
  const sections = new Map<string, Uint8Array>()
  for await (const { cid, bytes } of readSections(path)) sections.set(cid.toString(), bytes)
  const bytesOf = (cid: CID): Uint8Array => {
    const bytes = sections.get(cid.toString())
    if (bytes === undefined) throw new DiskError(`${path} lacks ${cid.toString()}`)
    return bytes
  }
  const manifest = decodeManifest(root, bytesOf(root))
  const decoded = new Map<string, Encoded<FileIndex>>()
  const indexes = manifest.value.files.map(({ index }) => {
    const key = index.toString()
    const known = decoded.get(key) ?? decodeFileIndex(index, bytesOf(index))
    decoded.set(key, known)
    return known
  })
  return { manifest, indexes }
}

async function * readSections (path: string): AsyncGenerator<{ cid: CID, bytes: Uint8Array }> {
  const handle = await open(path, 'r')
  try {
    const head = new Uint8Array(16)
    for (let offset = 0, first = true; ; first = false) {
      const got = await readFully(handle, head, offset)
      if (got === 0) return
      const [size, prefix] = varint.decode(head.subarray(0, got))
      if (size > SECTION_BYTES_MAX) throw new DiskError(`${path} has a section of ${size} bytes`)
      const section = new Uint8Array(size)
      if (await readFully(handle, section, offset + prefix) < size) throw new DiskError(`${path} ends early`)
      offset += prefix + size
      // The first section is the header: its root is the file's name.
      if (!first) yield { cid: decodeCid(section.subarray(0, CID_BYTES)), bytes: section.subarray(CID_BYTES) }
    }
  } finally {
    await handle.close()
  }
}

function parseFlags (text: string): Flags {
  const value: unknown = JSON.parse(text)
  if (!isRecord(value) || value.version !== 1) throw new DiskError('its flags are of another version')
  const { pinned, published, addedAt, inPlace, otherPlaces = {} } = value
  if (typeof pinned !== 'boolean' || typeof published !== 'boolean' || typeof addedAt !== 'number' || !isRecord(inPlace) || !isRecord(otherPlaces)) throw new DiskError('its flags are malformed')
  const guards = new Map(Object.entries(inPlace).map(([key, guard]) => [key, parsePlace(guard)]))
  const others = new Map(Object.entries(otherPlaces).map(([key, places]) => {
    if (!Array.isArray(places)) throw new DiskError('its flags are malformed')
    return [key, places.map(parsePlace)]
  }))
  return { pinned, published, addedAt, guards, others }
}

function parsePlace (value: unknown): FileGuard {
  if (!isRecord(value)) throw new DiskError('its flags are malformed')
  const { path, size, mtimeMs, ino } = value
  if (typeof path !== 'string' || typeof size !== 'number' || typeof mtimeMs !== 'number' || typeof ino !== 'number') throw new DiskError('its flags are malformed')
  return { path, size, mtimeMs, ino }
}
