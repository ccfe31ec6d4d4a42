#!/usr/bin/perl
# search.pl - looks for a key's value in every file of a folder
#
#     openssl pkey -text -noout < KEY | search.pl [--expect] priv|pub FOLDER
#
# Reads the value after "priv:" (or "pub:") from openssl's text on standard input and searches
# all files for it: as raw bytes, as hexadecimal digits and as Base64 in each of its three
# alignments. Finding it is a failure; with --expect, not finding it is.
use strict;
use warnings;
use File::Find;
use MIME::Base64;

my $expect = @ARGV && $ARGV[0] eq '--expect' ? shift : 0;
my ($which, $folder) = @ARGV;
my $text = do { local $/; <STDIN> };
my ($hex) = defined $text && $text =~ /^$which:\n((?:[ ]+[0-9a-f:]+\n)+)/m
    or die "no value \"$which\" in the text on standard input\n";
$hex =~ s/[^0-9a-f]//g;
my $raw = pack 'H*', $hex;
$raw =~ s/^\0+//;
$raw =~ s/^\x04// if $which eq 'pub';
length $raw >= 16 or die "the value is too short to search for\n";

my %forms = ('raw' => $raw, 'hex' => unpack('H*', $raw), 'HEX' => uc unpack('H*', $raw));
for my $shift (0 .. 2) {
    my $whole = encode_base64(("\0" x $shift) . $raw, '');
    # The characters at both ends also depend on the neighbours.
    $forms{"Base64 $shift"} = substr $whole, $shift ? 4 : 0, length($raw) / 3 * 4 - 8;
}

my ($files, $bytes, @found) = (0, 0);
sub look {
    return unless -f $_ && !-l $_;
    open my $file, '<:raw', $_ or die "$File::Find::name: $!\n";
    my $content = do { local $/; <$file> } // '';
    $files++;
    $bytes += length $content;
    my $joined = $content;
    $joined =~ s/[\r\n]//g;
    for my $form (sort keys %forms) {
        next if index($content, $forms{$form}) < 0 && index($joined, $forms{$form}) < 0;
        push @found, "$File::Find::name ($form)";
        last;
    }
}
find({wanted => \&look, no_chdir => 1}, $folder);

print "searched $files files, $bytes bytes: found ", scalar @found, " times\n";
print "  $_\n" for @found;
exit(($expect ? !@found : @found) ? 1 : 0);
