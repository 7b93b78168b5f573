// IPv4 networks: do two of them overlap? And the kernel's routing table as such networks. Pure.
import { BlockList, isIPv4 } from 'node:net';

/** `172.22.0.0/16`; undefined for anything else, IPv6 included. */
function parseNetwork(text: string) {
  const [address = '', bits = '32'] = text.split('/');
  if (!isIPv4(address) || !/^\d+$/.test(bits) || Number(bits) > 32) return undefined;
  const network = new BlockList();
  network.addSubnet(address, Number(bits));
  return { address, contains: (other: string) => network.check(other) };
}

/** False also when one of them is no IPv4 network. */
export function overlaps(one: string, other: string): boolean {
  const [a, b] = [parseNetwork(one), parseNetwork(other)];
  // Of two networks that overlap, one lies in the other.
  return a !== undefined && b !== undefined && (a.contains(b.address) || b.contains(a.address));
}

/** /proc/net/route: hexadecimal, least significant byte first; the default route leads everywhere and is left out. */
export function parseRoutes(text: string): { interface: string; subnet: string }[] {
  const lines = text.split('\n').slice(1);
  return lines.flatMap((line) => {
    const [name = '', destination = '', , , , , , mask = ''] = line.split(/\s+/);
    if (!/^[0-9A-F]{8}$/i.test(destination) || !/^[0-9A-F]{8}$/i.test(mask)) return [];
    const bits = [...Number.parseInt(mask, 16).toString(2)].filter((bit) => bit === '1').length;
    const address = Buffer.from(destination, 'hex').reverse().join('.');
    return bits === 0 ? [] : [{ interface: name, subnet: `${address}/${bits}` }];
  });
}
