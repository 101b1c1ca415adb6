import { DHT_LOOKUP_ASKED_MAX, DHT_LOOKUP_CANDIDATES_MAX, throwIfAborted } from '../base/index.ts'
import type { Contact } from './contact.ts'
import { compareDistance } from './dht-key.ts'

/** How many peers keep each record: Kademlia's k, as kad-dht has it. */
export const CLOSEST_PEERS = 20
/** Questions under way at once: Kademlia's alpha. */
const ASKED_AT_ONCE = 10
/** Who named so many that did not answer, and so many times more than did, names what is not there: peers that are gone are a share of what others name. */
const FALSE_NAMES_MIN = 4
const FALSE_NAMES_TIMES = 3

export interface LookupInit {
  /** A place in the key space. */
  target: Uint8Array
  /** Where to begin. */
  seeds: Contact[]
  /** This node, which is never asked. */
  self: string
  /** Asks one peer for those it knows nearest. A rejection leaves the peer out. */
  ask: (contact: Contact, signal: AbortSignal) => Promise<Contact[]>
  signal: AbortSignal
  /**
   * It is also over when so many of the nearest, asked since somebody nearer was last heard of, told of nobody nearer still: the
   * nearest known are taken as they are, some unasked. For whom it is enough that most of them are right and alive. Missing: all are asked.
   */
  quiet?: number
  /** Called when it may ask no more and has not come to its end: there may be nearer ones. */
  onCutShort?: () => void
}

/** One who was asked: how many of those it named answered, and how many did not. */
interface Namer { answered: number, failed: number }
/** `namers`: none of one that this node knew. */
interface Candidate { contact: Contact, namers: Namer[], state: 'new' | 'asked' | 'answered' | 'failed' }

/**
 * Kademlia's node lookup: the CLOSEST_PEERS peers nearest to the target that answered, nearest first; fewer only when
 * there are no more. Ends when the nearest known have all answered or failed; questions to others are called off. Names cost nothing to make up, the
 * nearer the better: those of who named several that do not answer are asked only where somebody else names them too, or nobody else is left.
 * Throws what the signal does.
 */
export async function lookup (init: LookupInit): Promise<Contact[]> {
  const known = new Map<string, Candidate>()
  let nearest: Candidate[] = []
  const add = (contacts: readonly Contact[], namer?: Namer): void => {
    for (const contact of contacts) {
      const before = known.get(contact.id)
      if (namer !== undefined && before !== undefined && before.namers.length > 0 && before.namers.at(-1) !== namer) {
        before.namers.push(namer)
        count(namer, before)
      }
      if (contact.id === init.self || before !== undefined) continue
      const candidate: Candidate = { contact, namers: namer === undefined ? [] : [namer], state: 'new' }
      known.set(contact.id, candidate)
      nearest.push(candidate)
    }
    nearest.sort((a, b) => compareDistance(init.target, a.contact.kadId, b.contact.kadId))
    for (const dropped of nearest.splice(DHT_LOOKUP_CANDIDATES_MAX)) known.delete(dropped.contact.id)
  }
  add(init.seeds)

  const quietMax = init.quiet ?? Infinity
  const over = new AbortController()
  const signal = AbortSignal.any([init.signal, over.signal])
  const underWay = new Set<Promise<void>>()
  let asked = 0
  /** Of the nearest, how many told of nobody nearer; and how many had been asked when somebody last did. */
  let quiet = 0
  let nearerAt = 0
  const ask = async (candidate: Candidate): Promise<void> => {
    candidate.state = 'asked'
    const number = asked
    try {
      const contacts = await init.ask(candidate.contact, signal)
      const before = closest(nearest)
      add(contacts, { answered: 0, failed: 0 })
      candidate.state = 'answered'
      if (closest(nearest).some((near, i) => near !== before[i])) {
        quiet = 0
        nearerAt = asked
      } else if (number > nearerAt && before.includes(candidate)) {
        quiet++
      }
    } catch {
      candidate.state = 'failed' // gone, full or broken: the lookup goes around it
      nearest = nearest.filter(other => other !== candidate)
    }
    for (const namer of candidate.namers) count(namer, candidate)
  }
  try {
    for (;;) {
      throwIfAborted(init.signal)
      const wanted = closest(nearest)
      if (wanted.every(candidate => candidate.state === 'answered') || quiet >= quietMax) break
      const next = wanted.find(candidate => candidate.state === 'new')
      if (next !== undefined && underWay.size < ASKED_AT_ONCE && asked < DHT_LOOKUP_ASKED_MAX) {
        asked++
        const question = ask(next).finally(() => { underWay.delete(question) })
        underWay.add(question)
        continue
      }
      if (underWay.size === 0) {
        if (next !== undefined) init.onCutShort?.()
        break
      }
      await Promise.race(underWay)
    }
  } finally {
    over.abort()
  }
  return nearest.filter(candidate => candidate.state === 'answered' || (quiet >= quietMax && !isDoubtful(candidate))).slice(0, CLOSEST_PEERS).map(candidate => candidate.contact)
}

/** Those to take or to ask; the doubtful behind all others. */
function closest (nearest: readonly Candidate[]): Candidate[] {
  const found: Candidate[] = []
  const doubtful: Candidate[] = []
  for (const candidate of nearest) {
    if (found.length >= CLOSEST_PEERS) return found
    if (isDoubtful(candidate)) doubtful.push(candidate)
    else found.push(candidate)
  }
  return [...found, ...doubtful].slice(0, CLOSEST_PEERS)
}

function isDoubtful ({ state, namers }: Candidate): boolean {
  return state === 'new' && namers.length > 0 && namers.every(({ answered, failed }) => failed >= FALSE_NAMES_MIN && failed > FALSE_NAMES_TIMES * answered)
}

function count (namer: Namer, { state }: Candidate): void {
  if (state === 'answered') namer.answered++
  else if (state === 'failed') namer.failed++
}
