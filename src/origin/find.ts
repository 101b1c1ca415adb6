import { asError, sleep, throwIfAborted, type Clock, type Logger } from '../base/index.ts'
import { CLAIM_MS, decide, type Claim } from './claims.ts'
import type { Describe } from './components.ts'
import { checkClaim } from './check-description.ts'
import { YieldedError } from './fetch.ts'
import type { KnownModel } from './known-model.ts'
import type { OriginSwarm } from './swarm.ts'
import type { OriginFetch } from './types.ts'

export interface FindRevisionComponents {
  swarm: OriginSwarm
  clock: Clock
  logger: Logger
  describe: Describe
  /** This node may begin one more fetch. */
  hasSlot: () => boolean
  /** By this node, when it is its turn, and there is a slot. Resolves with the model CID. */
  fetch: () => Promise<string>
}

export interface FindRevisionInit {
  known: KnownModel
  self: string
  progress: OriginFetch
  /** What this node says of itself; undefined: nothing any more. */
  claim: (claim: Claim | undefined) => void
  /** This peer fetches it. */
  follows: (peerId: string) => void
  signal: AbortSignal
}

/** Those who ask at the same moment are heard before anybody begins. */
const SETTLE_MS = 300
const POLL_FIRST_MS = 500
const POLL_MAX_MS = 2_000
/** When nobody answers who did before, somebody may be fetching all the same: so long a claim is good for. */
const DEAF_MS = CLAIM_MS
/** A peer that says it fetches and gets nothing new for so long is taken for stuck. */
const STUCK_MS = 45_000
/** And is not listened to for so long, in which this node, or the next, may get far. */
const STUCK_DISTRUST_MS = 3_600_000

/**
 * The model CID of a revision: from peers who have it, or who are fetching it; and from the upstream, by this node, when it is its
 * turn. Of what a peer names, its list of files was compared with the upstream's, and its bytes not yet; `from` are those who say to have it. Throws what fetching throws.
 */
export async function findRevision (components: FindRevisionComponents, init: FindRevisionInit): Promise<{ cid: string, fetched: boolean, from: string[] }> {
  const { swarm, clock, logger } = components
  const { known, self, progress, signal } = init
  known.distrusted.clear()
  const goOnWithout = (peerId: string, error: unknown): void => {
    logger.info({ peerId, repo: known.repo, error: asError(error).message }, 'a peer is not waited for')
  }
  const watch = new Progress()
  const claimWant = (): void => { init.claim({ peerId: self, state: 'want', cid: undefined, bytesDone: 0, bytesTotal: 0 }) }
  let since: number | undefined
  let heardAt = clock.monotonic()
  let deep = false
  let searched = false
  try {
    claimWant()
    for (let turn = 0; ; turn++) {
      throwIfAborted(signal)
      const { claims: said, isDeaf } = await swarm.look(known.key, known.name, { deep, hearsay: true, signal })
      searched ||= deep
      deep = false
      const now = clock.monotonic()
      const claims = said.filter(claim => known.listensTo(claim, now))
      if (turn === 0 && claims.every(({ state }) => state === 'want') && (claims.length > 0 || await swarm.hasPeers())) {
        await sleep(clock, SETTLE_MS, signal)
        continue
      }
      since ??= now
      if (!isDeaf) heardAt = now
      else if (now - heardAt < DEAF_MS) {
        searched = false
        await sleep(clock, POLL_FIRST_MS, signal)
        continue
      }
      const decision = decide(known.key, self, claims, now - since)
      switch (decision.do) {
        case 'load':
          try {
            const cid = await checkClaim(components, known, decision.claim, signal)
            return { cid, fetched: false, from: claims.filter(claim => claim.cid === cid).map(({ peerId }) => peerId) }
          } catch (error) {
            throwIfAborted(signal)
            known.doubt(decision.claim, error, clock.monotonic())
            goOnWithout(decision.claim.peerId, error)
          }
          continue
        case 'follow': {
          const { peerId, bytesDone } = decision.claim
          Object.assign(progress, { phase: 'waiting', peerId, bytesDone: Math.min(bytesDone, progress.bytesTotal) })
          init.follows(peerId)
          if (watch.stuckMs(decision.claim, now) > STUCK_MS) {
            known.distrusted.set(peerId, clock.monotonic() + STUCK_DISTRUST_MS)
            goOnWithout(peerId, new Error(`it received nothing for ${STUCK_MS / 1_000} s`))
          }
          since = now // when it gives up, all begin to wait anew
          searched = false
          break
        }
        case 'wait':
          progress.phase = 'asking'
          searched = false // others may have come meanwhile
          break
        case 'fetch':
          // Its turn, but it is busy with others: somebody else may begin meanwhile, who is heard as by all who wait.
          if (!components.hasSlot()) {
            progress.phase = 'asking'
            searched = false
            break
          }
          // The search for its name is for whose turn it is: it asks twenty peers, and most who want it only have to wait. It is said
          // before it is asked: of two that begin together, and have heard of each other from nobody, the later one finds the other, and
          // asks it, which tells that one too.
          if (!searched) {
            await swarm.announce(known.name, signal)
            deep = true
            continue
          }
          try {
            return { cid: await components.fetch(), fetched: true, from: [] }
          } catch (error) {
            if (!(error instanceof YieldedError)) throw error
            logger.info({ repo: known.repo, peerId: error.claim.peerId }, 'a peer fetches it as well; it goes on')
            claimWant()
            progress.phase = 'asking'
            searched = false
          }
          continue
      }
      await sleep(clock, Math.min(POLL_MAX_MS, POLL_FIRST_MS * 1.5 ** Math.min(turn, 8)), signal)
    }
  } finally {
    init.claim(undefined)
  }
}

/** How long the one who fetches has received nothing. */
class Progress {
  #peerId = ''
  #bytes = -1
  #at = 0

  stuckMs ({ peerId, bytesDone }: Claim, now: number): number {
    if (peerId !== this.#peerId || bytesDone > this.#bytes) {
      this.#peerId = peerId
      this.#bytes = bytesDone
      this.#at = now
    }
    return now - this.#at
  }
}
