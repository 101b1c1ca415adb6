import type { ShownStatus } from '../api/types.ts'
import { count, size } from './format.ts'

/** A node's status in one line, its worst problem first: what `systemctl status` shows. */
export function shortStatus ({ problems, peersConnected, models, transfers }: Pick<ShownStatus, 'problems' | 'peersConnected' | 'models' | 'transfers'>): string {
  const [worst] = problems
  return [
    ...(worst === undefined ? [] : [`${count(problems.length, 'problem')}: ${worst}`]),
    `${count(peersConnected, 'peer')}, ${count(models.count, 'model')} (${models.complete} complete, ${size(models.bytes)}), ${count(transfers, 'load')} running`
  ].join('; ')
}
