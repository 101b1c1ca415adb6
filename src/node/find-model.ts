import type { CID } from 'multiformats/cid'
import {
  AbortError, FILE_INDEX_BYTES_MAX, InvalidManifestError, MANIFEST_BYTES_MAX, MODEL_INDEX_BYTES_MAX, NoProviderError, REQUESTS_IN_FLIGHT_MAX, abortReason, asError, shuffle, sleep, throwIfAborted,
  type Clock, type Logger, type Random
} from '../base/index.ts'
import type { ContentRouter } from '../discovery/router.ts'
import { checkModel, decodeFileIndex, decodeManifest, type Encoded, type FileIndex, type Model } from '../model/index.ts'
import type { Exchange } from '../transfer/types.ts'
import type { PeerBook } from './peer-book.ts'

export interface FindComponents {
  exchange: Exchange
  router: ContentRouter
  peers: PeerBook
  clock: Clock
  random: Random
  logger: Logger
}

/** Connected peers asked directly, beside the search: in a rack that is everyone, in a large swarm the search does the work. */
const NEIGHBOURS_ASKED_MAX = 16
/** Between two searches for something nobody had. */
const SEARCH_AGAIN_MS = 1_000
const ASKED_AT_ONCE = 8
/** Those who are said to have something get so long to give it before others are looked for as well: one who gives a byte a second must not be waited for. */
const HINTS_AHEAD_MS = 1_000
/**
 * File indexes asked for at once, so that a model of 20,000 small files does not wait for a round trip with each of them.
 * A peer sends one answer after the other: in memory is one of each peer beside those that are counted.
 */
const INDEXES_AT_ONCE = REQUESTS_IN_FLIGHT_MAX / 2

/**
 * Who might have `cid`: connected peers first, then the search's answers. Each peer once. `asked` collects who was
 * asked in any way, so that "nobody has it" can say how many that were.
 */
export async function * candidates (components: FindComponents, cid: CID, asked: Set<string>, signal: AbortSignal): AsyncGenerator<string> {
  const { exchange, peers, router } = components
  const seen = new Set(neighbours(components))
  yield * seen
  for await (const provider of router.findProviders(cid, { signal, onAsked: peerId => { asked.add(peerId) } })) {
    await peers.learn(provider)
    if (seen.has(provider.peerId) || exchange.isBanned(provider.peerId)) continue
    seen.add(provider.peerId)
    yield provider.peerId
  }
}

/** Of the connected peers, those to ask first: it costs no search, and neighbours often load the same. */
export function neighbours ({ exchange, peers, random }: FindComponents): string[] {
  return shuffle(random, peers.connected()).slice(0, NEIGHBOURS_ASKED_MAX).filter(peerId => !exchange.isBanned(peerId))
}

/** How far the search for a model has come: each of those who wait for it gives up by it, in its own time. */
export class Finding {
  readonly asked = new Set<string>()
  readonly #model: CID
  readonly #lacking = new Set<CID>()
  /** When something was last found, by the monotonic clock. */
  #foundAt = -Infinity

  constructor (model: CID) { this.#model = model }

  get foundAt (): number { return this.#foundAt }

  begin (cid: CID): void { this.#lacking.add(cid) }

  found (cid: CID, now: number): void {
    this.#lacking.delete(cid)
    this.#foundAt = now
  }

  /** What is told to somebody who waits no longer. */
  nobody (): Error {
    const [cid = this.#model] = this.#lacking
    return nobody(cid, this.asked.size)
  }
}

export interface FindModelOptions {
  signal: AbortSignal
  /** Peers that are said to have it: asked before anybody is searched for. */
  hints?: readonly string[]
}

/**
 * The verified manifest and file indexes of a model, from whoever has them first. Searches until `signal` says that
 * nobody waits any more. A peer that answers with wrong bytes is banned by the exchange and the search goes on; bytes
 * that match their CID but are no valid model end it (InvalidManifestError, InvalidFileIndexError): no other peer can
 * have better ones.
 */
export async function findModel (components: FindComponents, cid: CID, finding: Finding, { signal, hints = [] }: FindModelOptions): Promise<{ model: Model, from: Set<string> }> {
  const from = new Set<string>()
  const manifestBytes = await search(components, cid, MANIFEST_BYTES_MAX, { finding, from, signal, first: new Set(hints) })
  const manifest = decodeManifest(cid, manifestBytes)

  const indexes: Array<Encoded<FileIndex>> = []
  const wanted = new Map<string, CID>()
  for (const file of manifest.value.files) wanted.set(file.index.toString(), file.index)
  const byCid = new Map<string, Encoded<FileIndex>>()
  const queue = wanted.values()
  let indexBytes = 0 // decoded they take as much again, so none is decoded beyond the limit
  const failed = new AbortController()
  const either = AbortSignal.any([signal, failed.signal])
  const workers = Array.from({ length: Math.min(INDEXES_AT_ONCE, wanted.size) }, async () => {
    for (let next = queue.next(); next.done !== true; next = queue.next()) {
      const index = next.value
      const bytes = await search(components, index, FILE_INDEX_BYTES_MAX, { finding, from, signal: either, first: from, model: cid })
      indexBytes += bytes.length
      if (indexBytes > MODEL_INDEX_BYTES_MAX) throw new InvalidManifestError(`the file indexes of ${cid.toString()} have more than ${MODEL_INDEX_BYTES_MAX} bytes together, the most that one model may have. Whoever published it has to publish it in parts`)
      byCid.set(index.toString(), decodeFileIndex(index, bytes))
    }
  })
  try {
    await Promise.all(workers)
  } catch (error) {
    failed.abort(error)
    await Promise.allSettled(workers)
    throw error
  }
  for (const file of manifest.value.files) {
    const index = byCid.get(file.index.toString())
    if (index !== undefined) indexes.push(index)
  }
  await checkModel(manifest.value, indexes.map(index => index.value))
  return { model: { manifest, indexes }, from }
}

interface SearchOptions {
  finding: Finding
  /** Collects who had it. */
  from: Set<string>
  signal: AbortSignal
  /** They have it, it is said: asked for a moment before anyone is searched for. */
  first: Set<string>
  /** Whose providers are searched when `first` do not have it: file indexes are not announced by themselves. */
  model?: CID
}

/** From those who are said to have it; when they do not give it soon, from whoever has it first. */
async function search (components: FindComponents, cid: CID, bytesMax: number, options: SearchOptions): Promise<Uint8Array> {
  const { exchange, clock, logger } = components
  const { finding, from, signal } = options
  const { asked } = finding
  finding.begin(cid)
  // Not AbortSignal.any(): a model has tens of thousands of indexes, which all end with the one signal.
  const over = new AbortController()
  const end = (): void => { over.abort(abortReason(signal)) }
  if (signal.aborted) end()
  signal.addEventListener('abort', end, { once: true })
  const ask = async (peers: string[], until = signal): Promise<Uint8Array | undefined> => {
    for (const peer of peers) asked.add(peer)
    try {
      const answer = await exchange.fetchMetadata(cid, peers, bytesMax, { signal: until })
      from.add(answer.from)
      return answer.bytes
    } catch (error) {
      throwIfAborted(until)
      logger.debug({ cid: cid.toString(), peers, error: asError(error).message }, 'peers do not have it')
      return undefined
    }
  }
  try {
    const first = options.first.size === 0 ? Promise.resolve(undefined) : ask([...options.first], over.signal)
    // Whoever else was asked may still answer: it is one more to fetch from.
    const searched = aheadOf(first, finding, clock).then(async bytes => bytes ?? await searchOn(components, options.model ?? cid, asked, ask, over.signal))
    const bytes = await Promise.race([first.then(async bytes => bytes ?? await searched), searched])
    finding.found(cid, clock.monotonic())
    return bytes
  } finally {
    signal.removeEventListener('abort', end)
    over.abort(new AbortError('it was found'))
  }
}

/** What is given before nothing has been found for HINTS_AHEAD_MS, else undefined: of many indexes that are asked for at once each waits for the others. */
async function aheadOf<T> (given: Promise<T>, finding: Finding, clock: Clock): Promise<T | undefined> {
  const startedAt = clock.monotonic()
  let cancel = (): void => undefined
  const late = new Promise<undefined>(resolve => {
    const watch = (delayMs: number): void => {
      cancel = clock.setTimeout(() => {
        const waitedMs = clock.monotonic() - Math.max(startedAt, finding.foundAt)
        if (waitedMs < HINTS_AHEAD_MS) watch(HINTS_AHEAD_MS - waitedMs)
        else resolve(undefined)
      }, delayMs)
    }
    watch(HINTS_AHEAD_MS)
  })
  try {
    return await Promise.race([given, late])
  } finally {
    cancel()
  }
}

/** Asks whoever is found, until somebody has it. */
async function searchOn (components: FindComponents, model: CID, asked: Set<string>, ask: (peers: string[]) => Promise<Uint8Array | undefined>, signal: AbortSignal): Promise<Uint8Array> {
  const { clock, logger } = components
  for (;;) {
    throwIfAborted(signal)
    const searching = new AbortController()
    try {
      const bytes = await firstAnswer(candidates(components, model, asked, AbortSignal.any([signal, searching.signal])), ask)
      if (bytes !== undefined) return bytes
    } catch (error) {
      throwIfAborted(signal)
      logger.debug({ cid: model.toString(), error: asError(error).message }, 'search failed')
    } finally {
      searching.abort()
    }
    await sleep(clock, SEARCH_AGAIN_MS, signal)
  }
}

/** Asks peers as they come, a few at a time, and returns the first answer without waiting for the search to end. */
async function firstAnswer (peers: AsyncGenerator<string>, ask: (peers: string[]) => Promise<Uint8Array | undefined>): Promise<Uint8Array | undefined> {
  const open = new Set<Promise<void>>()
  let found: Uint8Array | undefined
  let next: Promise<IteratorResult<string>> | undefined = peers.next()
  while (next !== undefined || open.size > 0) {
    const mayAskMore: boolean = open.size < ASKED_AT_ONCE
    const step: IteratorResult<string> | undefined = await Promise.race([...(next !== undefined && mayAskMore ? [next] : []), ...[...open].map(async asking => { await asking; return undefined })])
    if (found !== undefined) return found
    if (step === undefined) continue
    if (step.done === true) { next = undefined; continue }
    const asking: Promise<void> = ask([step.value]).then(bytes => { found ??= bytes }).finally(() => { open.delete(asking) })
    asking.catch(() => undefined) // raced above
    open.add(asking)
    next = peers.next()
    next.catch(() => undefined) // raced above, or left behind when an answer came first
  }
  return found
}

function nobody (cid: CID, asked: number): Error {
  if (asked === 0) return new NoProviderError(`nobody to ask for ${cid.toString()}: this node knows no other peer; join a swarm with an invite (shoal daemon --join INVITE)`)
  return new NoProviderError(`no peer has ${cid.toString()}: ${asked} ${asked === 1 ? 'peer was' : 'peers were'} asked; check the CID, and that a node which holds it is up`)
}

