/**
 * Moves bytes between this node and its peers. docs/PROTOCOL.md has what goes over the wire.
 *
 * - in: PeerExchange -> RunningFetch (what is wanted, written, recorded) -> Scheduler (decides; pure) and FetchPeers
 *   (carry out) -> PeerLink (one block stream a peer, a Reception a request) -> FramedBlockTransport -> FrameStream
 * - out: BlockServer (turns, slots, upload cap) -> ServedStream (the answers to one stream) -> FrameStream
 * - who has what: InventoryServer tells, PeerInventory listens
 */
import { PeerExchange } from './exchange.ts'
import type { Exchange, ExchangeComponents, ExchangeSettings } from './types.ts'

export { hashThreadsFor } from './block-checks.ts'
export { laneThreadsFor } from './lanes/lane-threads.ts'
export { exactly, nodePeerId, whole } from './checked.ts'
export { openStream } from './dial.ts'
export { framesOver, type FrameStream } from './frame-stream.ts'
export { TokenBucket, rateAt, type RateWindow } from './rate.ts'
export { decodeControl, encodeFrame, type FrameRules } from './wire.ts'
export type * from './types.ts'

/** Not started: start() makes it serve. Takes settings as they are: they were checked at the edge (node/setting-bounds.ts). */
export function createExchange (components: ExchangeComponents, settings: ExchangeSettings): Exchange {
  return new PeerExchange(components, settings)
}
