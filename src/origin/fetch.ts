import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { OutOfSpaceError, UpstreamMismatchError, asError, sleep, throwIfAborted, type Clock, type Logger } from '../base/index.ts'
import type { AddResult, Describe, DescribedModel, LocalFiles, PublishOptions } from './components.ts'
import { yieldsTo, type Claim } from './claims.ts'
import { Download } from './download.ts'
import type { KnownModel } from './known-model.ts'
import type { OriginSwarm } from './swarm.ts'
import type { Caller, OriginFetch } from './types.ts'
import { bytesOf, contentOf } from './upstream-model.ts'
import type { Upstream } from './upstream.ts'

export interface FetchComponents {
  upstream: Upstream
  swarm: OriginSwarm
  clock: Clock
  logger: Logger
  /** Makes room for so many bytes. Throws QuotaExceededError, OutOfSpaceError. */
  makeRoom: (bytes: number, what: string) => Promise<void>
  publish: (directory: string, options: PublishOptions) => Promise<AddResult>
  local: LocalFiles
  describe: Describe
}

export interface FetchInit {
  known: KnownModel
  caller: Caller
  directory: string
  self: string
  progress: OriginFetch
  /** What this node says of itself from now on; `peek` gives what is here of a file. */
  claim: (claim: Claim | undefined, download: Download | undefined) => void
  signal: AbortSignal
}

/** A peer of higher rank began as well, or has it already. */
export class YieldedError extends Error {
  readonly claim: Claim

  constructor (claim: Claim) {
    super(`${claim.peerId} fetches it`)
    this.claim = claim
  }
}

/** Between two words to those who remember: a claim is void after CLAIM_MS. */
const TELL_FIRST_MS = 1_000
const TELL_MS = 3_000
/** A model that nobody describes in this time is taken for gone: clients wait 10 s for a head. */
const DESCRIBE_MS = 8_000
/** Every so often also to those who are found by the model's name. */
const DEEP_EVERY = 4

/**
 * Fetches a model from the upstream and publishes it. Says what it does before the first byte is asked for, and lets go when a
 * peer of higher rank does the same: then nobody, or one, goes on. Throws YieldedError, what Download and publishing throw.
 */
export async function fetchModel (components: FetchComponents, init: FetchInit): Promise<string> {
  const { known, caller, progress, signal: given } = init
  const over = new AbortController()
  const signal = AbortSignal.any([given, over.signal])
  const download = new Download(components, { model: known.model, caller, directory: join(init.directory, known.key), arrived: (path, place) => { known.arrivals.add(path, place) }, signal })
  let cutBytes = 0
  const isPublishing = (): boolean => progress.phase === 'publishing'
  const tell = async (deep: boolean): Promise<void> => {
    progress.bytesDone = download.bytesDone
    // Twice: what came, and what was cut into blocks, which takes its time of a large model.
    init.claim({ peerId: init.self, state: 'fetching', cid: undefined, bytesDone: download.bytesDone + cutBytes, bytesTotal: 2 * download.bytesTotal }, download)
    const { claims: said } = await components.swarm.look(known.key, known.name, { deep, signal })
    // It is all here by now, and what is cut into blocks already would have to come again.
    if (isPublishing()) return
    const now = components.clock.monotonic()
    // What was not to be had before is no reason to stop half way: a description is remembered, and outlives its model.
    const others = said.filter(claim => known.listensTo(claim, now) && (claim.cid === undefined || !known.hasMissed(claim.cid)))
    const other = yieldsTo(known.key, init.self, others, download.bytesDone)
    if (other === undefined) return
    if (other.state === 'have') {
      try {
        await checkClaim(components, known, other, signal)
      } catch (error) {
        throwIfAborted(signal)
        known.doubt(other, error, components.clock.monotonic())
        components.logger.info({ peerId: other.peerId, repo: known.repo, error: asError(error).message }, 'a peer has not what it says')
        return
      }
      if (isPublishing()) return
    }
    throw new YieldedError(other)
  }
  const keepTelling = async (): Promise<void> => {
    for (let turn = 1; !signal.aborted; turn++) {
      await sleep(components.clock, turn < 4 ? TELL_FIRST_MS : TELL_MS, signal)
      await tell(turn % DEEP_EVERY === 0)
    }
  }
  progress.phase = 'fetching'
  let telling: Promise<void> = Promise.resolve()
  try {
    await tell(false)
    await components.makeRoom(bytesOf(known.model), `${known.repo} from the upstream`)
    telling = keepTelling()
    telling.catch(error => { over.abort(error) })
    await download.run()
    progress.phase = 'publishing'
    const { cid } = await components.publish(download.files, { signal, onProgress: ({ bytesDone }) => { cutBytes = bytesDone }, onStored: async path => { await rm(path, { force: true }) } })
    checkDescription(known, await components.describe(cid, { signal }), 'this disk')
    await download.remove()
    return cid
  } catch (error) {
    // What is there is gone on with next time; not where it takes the last room.
    if (error instanceof OutOfSpaceError) await download.remove().catch(removal => { components.logger.warn({ error: asError(removal).message }, 'what was begun from the upstream could not be removed') })
    throwIfAborted(given)
    throw over.signal.aborted ? over.signal.reason : error
  } finally {
    known.arrivals.clear()
    init.claim(undefined, undefined)
    over.abort(new YieldedError({ peerId: init.self, state: 'want', cid: undefined, bytesDone: 0, bytesTotal: 0 }))
    await telling.catch(() => undefined)
  }
}

/** The model that a peer says to have, as far as its description goes. Throws UpstreamMismatchError, NoProviderError. */
export async function checkClaim ({ describe }: { describe: Describe }, known: KnownModel, { cid, peerId }: Claim, signal: AbortSignal): Promise<string> {
  if (cid === undefined) throw new TypeError(`a claim without a model from ${peerId}`)
  checkDescription(known, await describe(cid, { signal, from: [peerId], providerTimeoutMs: DESCRIBE_MS }), peerId)
  return cid
}

/**
 * Whether a model says of itself what the upstream says of this revision: the same files, of the same sizes, with the same hashes
 * where it has them. Its bytes are another matter. Throws UpstreamMismatchError.
 */
export function checkDescription ({ model, commit }: KnownModel, described: DescribedModel, from: string): void {
  const wrong = (path: string, found: string, told: string): UpstreamMismatchError =>
    new UpstreamMismatchError(`${path} of ${model.repo} at ${commit.slice(0, 12)} is ${found} in ${described.cid} from ${from}, and ${told} at the upstream`)
  const files = new Map(described.files.map(file => [file.path, file]))
  if (files.size !== model.files.length) throw wrong('the list of files', `${files.size} long`, `${model.files.length} long`)
  for (const file of model.files) {
    const found = files.get(file.path)
    if (found?.size !== file.size) throw wrong(file.path, found === undefined ? 'missing' : `of ${found.size} bytes`, `of ${file.size} bytes`)
    const hash = file.sha256 === undefined ? found.gitSha1 : found.sha256
    if (hash !== undefined && hash !== contentOf(file)) throw wrong(file.path, hash, contentOf(file))
  }
}
