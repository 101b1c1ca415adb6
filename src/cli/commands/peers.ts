import type { Command } from 'commander'
import type { PeerStatus } from '../../node/types.ts'
import { action } from '../context.ts'
import { duration, printable, rate, size, table } from '../format.ts'

export function addPeers (program: Command): void {
  program.command('peers')
    .description('peers with their rates and scores')
    .action(action(async context => {
      const peers = await context.client.peers()
      context.print(peers, peers.length === 0
        ? 'no peers; join a swarm with: shoal daemon --join INVITE'
        : table(['PEER', 'STATE', 'VIA', '>IN', '>OUT', '>RECEIVED', '>SENT', '>SCORE', '>RTT', 'ADDRESS'], peers.map(peer => [
          peer.peerId,
          state(peer),
          peer.transport ?? '-',
          rate(peer.receiveRate),
          rate(peer.sendRate),
          size(peer.receivedBytes),
          size(peer.sentBytes),
          peer.score.toFixed(2),
          peer.latencyMs === undefined ? '-' : `${peer.latencyMs.toFixed(1)} ms`,
          printable(peer.multiaddrs[0] ?? '-')
        ])))
    }))
}

function state (peer: PeerStatus): string {
  if (peer.banned) return `banned for ${duration(peer.banSecondsLeft ?? 0)}: ${printable(peer.banReason ?? 'unknown reason')}`
  return peer.connected ? peer.direction ?? 'connected' : 'away'
}
