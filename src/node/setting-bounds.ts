import { ConfigError, GiB, KiB, LOAD_PEERS_MAX, MiB, REPLICAS_MAX, SERVER_REQUESTS_PER_PEER_MAX } from '../base/index.ts'
import type { NodeSettings } from './types.ts'

/** What one number may be. All but shares are whole; the kind says how people write it (src/cli/config.ts). */
export interface Bounds { kind: 'bytes' | 'milliseconds' | 'count' | 'share', min: number, max: number }

type Numbers<Section> = { [Name in keyof Section as Section[Name] extends number | undefined ? Name : never]: Bounds }
type SettingBounds = { [Section in 'storage' | 'announce' | 'transfer' | 'lane' | 'replication' | 'network']: Numbers<NodeSettings[Section]> }

const SECOND = 1_000
const HOUR = 3_600 * SECOND
const DAY = 24 * HOUR
/** Nobody waits longer for a host that is gone. */
const GRACE_MAX = 30 * DAY
/** Slower, and one block takes more than a minute. */
const RATE = bytes(64 * KiB)

/** Of every number among the settings: for the command line, which also reads text, and for programs. */
export const settingBounds: SettingBounds = {
  storage: {
    quota: bytes(0),
    donate: bytes(0),
    slots: count(4, 4_096),
    syncBytes: bytes(4 * MiB, 4 * GiB),
    syncIntervalMs: milliseconds(10, 60 * SECOND)
  },
  announce: {
    // Records expire after 48 h: refreshing later than that would let them.
    periodMs: milliseconds(SECOND, 47 * HOUR),
    concurrency: count(1, 64)
  },
  transfer: {
    providerTimeoutMs: milliseconds(100, 24 * HOUR),
    stallTimeoutMs: milliseconds(100, 24 * HOUR),
    requestTimeoutMs: milliseconds(100, HOUR),
    peersMax: count(1, LOAD_PEERS_MAX),
    serverRequestsPerPeer: count(1, SERVER_REQUESTS_PER_PEER_MAX),
    uploadBytesPerSecond: RATE,
    downloadBytesPerSecond: RATE,
    peerBytesPerSecond: RATE,
    hashThreads: count(0, 8)
  },
  lane: { port: count(0, 65_535), threads: count(0, 8) },
  replication: {
    min: count(0, REPLICAS_MAX),
    target: count(0, REPLICAS_MAX),
    max: count(0, REPLICAS_MAX),
    graceLastCopyMs: milliseconds(0, GRACE_MAX),
    graceTwoCopiesMs: milliseconds(0, GRACE_MAX),
    graceDefaultMs: milliseconds(0, GRACE_MAX),
    settleMs: milliseconds(0, DAY),
    proofTtlMs: milliseconds(100, 30 * DAY),
    suspectMs: milliseconds(50, HOUR),
    downMs: milliseconds(50, HOUR),
    rankDelayMs: milliseconds(0, HOUR),
    brakeShare: share(0.01, 1),
    brakeWindowMs: milliseconds(0, DAY),
    brakeMaxMs: milliseconds(0, 7 * DAY),
    trimEveryMs: milliseconds(0, 30 * DAY),
    trimProofMs: milliseconds(100, 30 * DAY),
    disputedEveryMs: milliseconds(0, 30 * DAY),
    repairBytesPerSecond: RATE,
    pullsMax: count(1, 64),
    offersMax: count(1, 256),
    rebalanceShare: share(0.1, 1),
    rebalanceEveryMs: milliseconds(100, 30 * DAY),
    scrubPeriodMs: milliseconds(100, 365 * DAY),
    // One rot place is no reason.
    scrubSuspectBlocks: count(2, 1_000_000)
  },
  network: { maxConnections: count(1, 10_000), inboundPerSecond: count(1, 10_000) }
}

/** Of each window of `transfer.backgroundRates`. */
export const backgroundRate = RATE
export const BACKGROUND_RATES_MAX = 24
const DAY_MINUTES = 1_440

/** What is not set is as it is by default, or none, and that is right. Throws ConfigError that names the setting. */
export function checkNumbers (settings: NodeSettings): void {
  for (const [section, bounds] of Object.entries(settingBounds)) {
    const given: Readonly<Record<string, unknown>> = { ...settings[section as keyof SettingBounds] }
    for (const [name, bound] of Object.entries(bounds)) {
      const value = given[name]
      if (value !== undefined) check(`${section}.${name}`, value, bound)
    }
  }
  const { backgroundRates } = settings.transfer
  const key = 'transfer.backgroundRates'
  if (backgroundRates.length > BACKGROUND_RATES_MAX) throw new ConfigError(`${key} has ${backgroundRates.length} windows; ${BACKGROUND_RATES_MAX} at most are allowed`)
  for (const { from, to, bytesPerSecond } of backgroundRates) {
    check(`${key} from`, from, count(0, DAY_MINUTES))
    check(`${key} to`, to, count(0, DAY_MINUTES))
    check(`${key} bytesPerSecond`, bytesPerSecond, backgroundRate)
    if (from === to) throw new ConfigError(`${key} has a window that ends when it begins, at minute ${from}`)
  }
}

function check (key: string, value: unknown, { kind, min, max }: Bounds): void {
  if (typeof value === 'number' && value >= min && value <= max && (kind === 'share' || Number.isInteger(value))) return
  const unit = kind === 'bytes' || kind === 'milliseconds' ? ` of ${kind}` : ''
  throw new ConfigError(`${key} must be a ${kind === 'share' ? '' : 'whole '}number${unit}, ${max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`}, not ${String(value)}`)
}

function bytes (min: number, max = Number.MAX_SAFE_INTEGER): Bounds { return { kind: 'bytes', min, max } }
function milliseconds (min: number, max: number): Bounds { return { kind: 'milliseconds', min, max } }
function count (min: number, max: number): Bounds { return { kind: 'count', min, max } }
function share (min: number, max: number): Bounds { return { kind: 'share', min, max } }
