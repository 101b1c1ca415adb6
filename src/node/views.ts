import type { Connection } from '@libp2p/interface'
import type { AbortOptions } from '../base/index.ts'
import { shardRuns } from '../model/index.ts'
import type { StoredModel } from '../storage/store.ts'
import type { PeerTransferStatus } from '../transfer/types.ts'
import type { FileDetails, ModelDetails, ModelSummary, PeerStatus } from './status-types.ts'
import type { Tensors } from './tensors.ts'
import type { ShowOptions } from './types.ts'

/** What is told of models and peers, put together from what the parts know. */
export function summaryOf (model: StoredModel, keeps: boolean): ModelSummary {
  return {
    cid: model.cid,
    files: model.files.length,
    bytes: model.bytes,
    presentBytes: model.presentBytes,
    complete: model.complete,
    pinned: model.pinned,
    published: model.published,
    keeps,
    addedAt: model.addedAt,
    usedAt: model.usedAt,
    path: model.directory
  }
}

export async function fileDetails (model: StoredModel, reader: Tensors, { tensors: isAsked = true, signal }: ShowOptions & Required<AbortOptions>): Promise<FileDetails[]> {
  const details: FileDetails[] = []
  for (const [position, { path, size }] of model.manifest.value.files.entries()) {
    const file = model.files[position]
    if (file === undefined) continue
    const tensors = isAsked ? await reader.list(file, { signal }) : undefined
    details.push({
      path,
      size,
      blocks: file.index.blocks.length,
      presentBlocks: file.present.count,
      sha256: Buffer.from(file.index.sha256).toString('hex'),
      chunker: file.index.chunker,
      inPlace: file.inPlace,
      away: file.away,
      tensorCount: tensors?.length ?? await reader.count(file, { signal }),
      tensors
    })
  }
  return details
}

/** Files of the same content have the same blocks and shards: each counts once. */
export function detailsOf (summary: ModelSummary, model: StoredModel, fileList: FileDetails[], holders: ModelDetails['holders']): ModelDetails {
  const files = [...new Set(model.files)]
  return {
    ...summary,
    fileList,
    holders,
    shards: files.reduce((sum, file) => sum + shardRuns(file.index).length, 0),
    blocks: files.reduce((sum, file) => sum + file.index.blocks.length, 0)
  }
}

export function peerStatuses (connections: readonly Connection[], transfers: readonly PeerTransferStatus[], connected: readonly string[]): PeerStatus[] {
  const byId = new Map(transfers.map(peer => [peer.peerId, peer]))
  const open = new Map(connections.map(connection => [connection.remotePeer.toString(), connection]))
  return [...new Set([...byId.keys(), ...connected])].sort().map(peerId => {
    const transfer = byId.get(peerId)
    const connection = open.get(peerId)
    return {
      peerId,
      multiaddrs: connection === undefined ? [] : [connection.remoteAddr.toString()],
      connected: connection !== undefined,
      direction: connection?.direction,
      transport: connection === undefined ? undefined : transfer?.transport,
      receiveRate: transfer?.receiveRate ?? 0,
      sendRate: transfer?.sendRate ?? 0,
      receivedBytes: transfer?.receivedBytes ?? 0,
      sentBytes: transfer?.sentBytes ?? 0,
      score: transfer?.score ?? 1,
      banned: transfer?.banned ?? false,
      banReason: transfer?.banReason,
      banSecondsLeft: transfer?.banSecondsLeft,
      latencyMs: connection?.rtt
    }
  })
}
